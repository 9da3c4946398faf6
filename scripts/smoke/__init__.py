"""What `smoke_test.py` asks of a running service.

SmokeError
├── NoAnswer        the service does not answer, or not in HTTP
├── Broken          a claim does not hold
└── NotApplicable   a claim says nothing of this model
"""


class SmokeError(Exception):
    """The message is a part of one line for the terminal."""


class NoAnswer(SmokeError):
    """Nothing came that could be judged."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether asking again cannot help."""


class Broken(SmokeError):
    """What was claimed is not so."""


class NotApplicable(SmokeError):
    """There is nothing to claim."""
