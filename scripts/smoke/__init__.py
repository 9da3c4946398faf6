"""The claims that `smoke_test.py` checks on a running service.

SmokeError
├── NoAnswer        the service does not answer, or not in HTTP
├── Broken          a claim does not hold
└── NotApplicable   a claim does not apply to this model
"""


class SmokeError(Exception):
    """The message is a part of one line for the terminal."""


class NoAnswer(SmokeError):
    """There is no answer to check."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
        """Whether a retry cannot help."""


class Broken(SmokeError):
    """A claim does not hold."""


class NotApplicable(SmokeError):
    """A claim does not apply."""
