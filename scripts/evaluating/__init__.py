"""What `evaluate.py`, `compare.py`, `replay.py` and `predictions.py` share: the log, truths, metrics, the plot."""
