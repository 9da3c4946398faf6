"""The error tree.

    ClientError                  status, code, request_id and details, if they are known
    ├── Unreachable              no connection, or one that broke before the answer was complete
    ├── TimedOut            504  no answer in time
    ├── UnexpectedAnswer         neither predictions nor an error, for example a redirect
    ├── VersionChanged           several requests for the rows were answered by two versions of the model
    ├── Refused             4xx  the request would fail again
    │   └── InvalidInput    422  rows do not fit: `details` has rows and columns
    └── Unavailable         5xx  and 429: temporary

No message holds values of the caller's rows, or credentials.

"""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Detail(NamedTuple):
    """One problem in the rows, by type, never by value."""

    expected: str
    got: str
    row: int | None
    """Of all rows of the call, from 0."""
    column: str | None
    index: Any
    """The row's label in the frame's index."""


class ClientError(Exception):
    """Base of the client's errors."""

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
        """Of HTTP; None without an answer."""
        self.code = code
        """The service's error code, as in its API documentation; None if something else answered."""
        self.request_id = request_id
        """The request's id in the service's log."""
        self.details = tuple(details)


class Unreachable(ClientError):
    """No connection, or one that broke before the answer was complete."""


class TimedOut(ClientError):
    """No answer in time."""


class UnexpectedAnswer(ClientError):
    """Neither predictions nor an error."""


class VersionChanged(ClientError):
    """Several requests for the rows were answered by two versions of the model."""


class Refused(ClientError):
    """The request would fail again."""


class InvalidInput(Refused):
    """The rows do not fit the model."""


class Unavailable(ClientError):
    """The service cannot answer at the moment."""
