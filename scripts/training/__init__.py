"""What `scripts/train.py` is made of: the table, its columns, the pipeline and its registration."""


class TrainingError(Exception):
    """Nothing can be trained or registered; the message is the one line that the user gets to see."""
