"""What `evaluate.py` and `compare.py` share: predictions joined with truths, metrics, the plot."""
