"""The parts of `scripts/train.py`: the table, its columns, the pipeline and its registration."""

from scripts.lifecycle import LifecycleError


class TrainingError(LifecycleError):
    """Nothing can be trained from this file."""
