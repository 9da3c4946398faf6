"""The error tree.

    ClientError                  status, code, request_id and details, where they are known
    ├── Unreachable              no connection, or one that broke before the answer was complete
    ├── TimedOut            504  no answer in time
    ├── UnexpectedAnswer         neither predictions nor an error, as of a redirect
    ├── VersionChanged           rows that were sent in several requests met two versions of the model
    ├── Refused             4xx  the request, which would fail again
    │   └── InvalidInput    422  its rows: `details` says which, and which columns
    └── Unavailable         5xx  and 429: not now

No message holds values of the caller's rows, or credentials.

"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Detail(NamedTuple):
    """One thing that is wrong in the rows: a type, never a value."""

    expected: str
    got: str
    row: int | None
    """Of all rows of the call, from 0."""
    column: str | None
    index: Any
    """What the frame's index calls the row."""


class ClientError(Exception):
    """What goes wrong while rows are predicted."""

    def __init__(
        self,
        message: str,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        details: Sequence[Detail] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        """Of HTTP; None where nothing was answered."""
        self.code = code
        """The service's error code, as in its API documentation; None if something else answered."""
        self.request_id = request_id
        """What the service's log calls the request."""
        self.details = tuple(details)


class Unreachable(ClientError):
    """No connection, or one that broke before the answer was complete."""


class TimedOut(ClientError):
    """No answer in time."""


class UnexpectedAnswer(ClientError):
    """Neither predictions nor an error."""


class VersionChanged(ClientError):
    """Rows that were sent in several requests met two versions of the model."""


class Refused(ClientError):
    """The request would fail again."""


class InvalidInput(Refused):
    """The rows do not fit the model."""


class Unavailable(ClientError):
    """The service has no answer now."""
