"""What `scripts/train.py` is made of: the table, its columns, the pipeline and its registration."""

from serving.redaction import redact


class TrainingError(Exception):
    """Nothing can be trained or registered; the message is the one line that the user gets to see."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))
