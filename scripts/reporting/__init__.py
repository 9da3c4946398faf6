"""What `drift_report.py` does: counts the prediction log into a reference's bins, and draws the page."""
