"""The error tree.

    ServingError
    ├── RequestError             the caller's mistake
    │   ├── MalformedRequest     400  not HTTP
    │   ├── UpgradeRefused       400  a WebSocket
    │   ├── MalformedBody        400  not JSON, not .npy, not Arrow
    │   ├── MalformedHeader      400  a header of ours that says nothing
    │   ├── Unauthorized         401  no signature, or a wrong one
    │   ├── Forbidden            403  switched off
    │   ├── RouteNotFound        404
    │   ├── VersionNotFound      404  the version that was asked for by name
    │   ├── MethodNotAllowed     405
    │   ├── RequestTimeout       408  headers or a body that do not come
    │   ├── PayloadTooLarge      413  too many bytes, rows or values
    │   ├── TargetTooLong        414
    │   ├── UnsupportedMedia     415
    │   ├── InvalidInput         422  does not fit the model's signature
    │   ├── ModelRefusedInput    422  fits the signature, and the model raised
    │   └── HeadersTooLarge      431
    ├── ModelNotReady            503
    ├── QueueFull                503  too many requests, or too large ones, wait already
    ├── ModelBusy                503  the calls before it take too long
    ├── TooManyConnections       503
    ├── TimedOut                 504  its own call takes too long
    ├── InternalError            500  a mistake of ours
    └── PrepareError                  no HTTP status: why no model could be made ready
        ├── RegistryUnreachable
        ├── ModelNotFound
        ├── ModelRefused              found, and must not be served
        ├── OutOfMemory               takes more memory than there is
        └── StorageError              the disk is full or not writable

The HTTP status sits on the class, so one handler turns any of them into an answer. No message holds a
value that a caller sent.
"""

from typing import ClassVar, Literal

import msgspec

from serving.redaction import redact

MAX_DETAILS = 20
"""How many problems of one request are reported."""


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong in a request: where, what was expected, and what type was there instead."""

    expected: str
    got: str
    row: int | None = None
    column: str | None = None


class ServingError(Exception):
    """What goes wrong while serving. `str()` is the line shown to people."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, details: list[Detail] | None = None) -> None:
        super().__init__(message)
        self.details = details or []
        self.model: tuple[str, str, str] | None = None
        """Name, version and role of the model that was asked, once one was chosen."""
        self.headers: list[tuple[bytes, bytes]] = []


class InternalError(ServingError):
    """A mistake of ours; the log has the trace."""


class RequestError(ServingError):
    """The caller's mistake."""

    status = 400


class MalformedRequest(RequestError):
    """The connection does not carry a request that can be told from the next one."""

    code = "malformed_request"


class UpgradeRefused(RequestError):
    """The client wants another protocol, and has nothing to ask in this one."""

    code = "upgrade_refused"

    def __init__(self) -> None:
        super().__init__("no WebSocket is served here; send a request without Upgrade")


class MalformedBody(RequestError):
    """The body is not what its media type says."""

    code = "malformed_body"


class MalformedHeader(RequestError):
    """A header has a value that means nothing."""

    code = "malformed_header"


class Unauthorized(RequestError):
    """Nobody who may ask for this."""

    status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    """Nobody may ask for this here."""

    status = 403
    code = "forbidden"


class RouteNotFound(RequestError):
    """No such endpoint."""

    status = 404
    code = "not_found"


class VersionNotFound(RequestError):
    """The version that the request names is not loaded."""

    status = 404
    code = "version_not_found"


class MethodNotAllowed(RequestError):
    """The endpoint exists, for another method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this endpoint answers {allowed} only")
        self.headers = [(b"allow", allowed.encode())]


class RequestTimeout(RequestError):
    """The rest of the headers, or of the body, did not come in time."""

    status = 408
    code = "request_timeout"

    def __init__(self, part: Literal["header", "body"], seconds: float) -> None:
        super().__init__(f"the {part} took longer than {seconds:g} seconds (SERVING_{part.upper()}_SECONDS)")


class PayloadTooLarge(RequestError):
    """The body has too many bytes, rows or values."""

    status = 413
    code = "payload_too_large"


class TargetTooLong(RequestError):
    """The path and its query have too many bytes."""

    status = 414
    code = "target_too_long"

    def __init__(self, limit: int) -> None:
        super().__init__(f"the path and its query have more than {limit} bytes")


class UnsupportedMedia(RequestError):
    """The Content-Type or the Content-Encoding is none that the endpoint reads."""

    status = 415
    code = "unsupported_media_type"


class InvalidInput(RequestError):
    """The body can be read and does not fit the model's signature."""

    status = 422
    code = "invalid_input"


class ModelRefusedInput(RequestError):
    """The rows fit the signature, and the model raised on them."""

    status = 422
    code = "model_refused_input"


class HeadersTooLarge(RequestError):
    """The headers or trailers have too many bytes, or are too many."""

    status = 431
    code = "headers_too_large"


class ModelNotReady(ServingError):
    """No model is loaded."""

    status = 503
    code = "model_not_ready"

    def __init__(self, message: str, retry_after_seconds: int = 5) -> None:
        super().__init__(message)
        self.headers = [(b"retry-after", str(retry_after_seconds).encode())]


class QueueFull(ServingError):
    """More requests wait for the model than may, or they take more memory."""

    status = 503
    code = "queue_full"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = [(b"retry-after", b"1")]


class ModelBusy(ServingError):
    """The model works at the requests before this one, and for too long."""

    status = 503
    code = "model_busy"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # Where there are more workers, another connection may lead to one of them.
        self.headers = [(b"retry-after", b"5"), (b"connection", b"close")]


class TimedOut(ServingError):
    """The request took longer than it may."""

    status = 504
    code = "timed_out"

    def __init__(self) -> None:
        super().__init__(
            "there was no answer in the time that the request may take (SERVING_REQUEST_TIMEOUT_SECONDS, or less "
            "by X-Request-Timeout)"
        )


class TooManyConnections(ServingError):
    """More connections are open than may be."""

    status = 503
    code = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("too many connections are open (SERVING_MAX_CONNECTIONS); try again shortly")
        self.headers = [(b"retry-after", b"1")]


class ClientGone(Exception):
    """The client hung up before it was answered; there is nobody to tell."""


class PrepareError(ServingError):
    """Why no model could be made ready; shown by `/readyz` and in the log."""

    code = "prepare_failed"
    final_after: int | None = None
    """After so many failures a version is not tried again until it changes; None of what may always pass."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class RegistryUnreachable(PrepareError):
    """The tracking server or the artifact store does not answer."""

    code = "registry_unreachable"


class ModelNotFound(PrepareError):
    """No such model, version, alias or artifact."""

    code = "model_not_found"


class ModelRefused(PrepareError):
    """The version was found and must not be served."""

    code = "model_refused"
    final_after = 1


class OutOfMemory(PrepareError):
    """The version takes more memory than there is; another time there may be more."""

    code = "out_of_memory"
    final_after = 2


class StorageError(PrepareError):
    """The prepared model cannot be written."""

    code = "storage_error"


def from_code(code: str, message: str) -> PrepareError:
    """Returns the error of a code, as another process has told it."""
    kinds = (RegistryUnreachable, ModelNotFound, ModelRefused, OutOfMemory, StorageError)
    return {kind.code: kind for kind in kinds}.get(code, PrepareError)(message)
