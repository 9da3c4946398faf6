"""What `promote`, `rollback`, `validate` and `history` share.

LifecycleError           2  nothing was done
├── Overtaken            1  somebody else has moved it meanwhile; left unchanged
├── NotRecorded          1  it was moved, but could not be recorded
└── StillThere           1  the rollback failed
"""

from typing import ClassVar

from serving.redaction import redact


class LifecycleError(Exception):
    """A command cannot be carried out; the message is one line for the terminal."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class Overtaken(LifecycleError):
    """Somebody else has moved the alias or stage since it was read."""

    exit_code = 1


class NotRecorded(LifecycleError):
    """The alias or stage was moved, and the record of it could not be written."""

    exit_code = 1


class StillThere(LifecycleError):
    """A rollback failed, and the version is still there; says what to do by hand."""

    exit_code = 1
