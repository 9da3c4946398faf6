"""What `scripts/train.py` is made of: the table, its columns, the pipeline and its registration."""

from scripts.lifecycle import LifecycleError


class TrainingError(LifecycleError):
    """Nothing can be trained from this file."""
