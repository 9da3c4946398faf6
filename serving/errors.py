"""The error tree.

    ServingError
    ├── RequestError             the caller's mistake
    │   ├── MalformedRequest     400  not HTTP
    │   ├── UpgradeRefused       400  a WebSocket
    │   ├── MalformedBody        400  not JSON, not .npy, not Arrow
    │   ├── MalformedHeader      400  a header of ours with an invalid value
    │   ├── Unauthorized         401  missing or wrong signature
    │   ├── Forbidden            403  disabled
    │   ├── RouteNotFound        404
    │   ├── VersionNotFound      404  the requested version is not loaded
    │   ├── MethodNotAllowed     405
    │   ├── RequestTimeout       408  headers or body not received in time
    │   ├── PayloadTooLarge      413  too many bytes, rows or values
    │   ├── TargetTooLong        414
    │   ├── UnsupportedMedia     415
    │   ├── InvalidInput         422  does not fit the model's signature
    │   ├── ModelRefusedInput    422  fits the signature, but the model raised
    │   └── HeadersTooLarge      431
    ├── ModelNotReady            503
    ├── QueueFull                503  too many queued requests, or too much memory
    ├── ModelBusy                503  the calls before it take too long
    ├── TooManyConnections       503
    ├── FeedbackUnavailable      503  truths cannot be kept, or quality not shown, at the moment
    ├── TimedOut                 504  its own call takes too long
    ├── InternalError            500  a bug in the service
    └── PrepareError                  no HTTP status: why no model is ready
        ├── RegistryUnreachable
        ├── ModelNotFound
        ├── ModelRefused              found, but must not be served
        ├── OutOfMemory               needs more memory than is free
        └── StorageError              the disk is full or not writable

The HTTP status sits on the class, so one handler turns any error into a response. No message contains a
caller's values.
"""

from typing import ClassVar, Literal

import msgspec

from serving.redaction import redact

MAX_DETAILS = 20
"""Reported problems per request."""


class Detail(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem in a request: where, what was expected, and the type found instead."""

    expected: str
    got: str
    row: int | None = None
    column: str | None = None


class ServingError(Exception):
    """Base of all errors. `str()` is the line shown to people."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, details: list[Detail] | None = None) -> None:
        super().__init__(message)
        self.details = details or []
        self.model: tuple[str, str, str] | None = None
        """Name, version and role of the model, once one is chosen."""
        self.headers: list[tuple[bytes, bytes]] = []


class InternalError(ServingError):
    """A bug in the service; the traceback is in the log."""


class RequestError(ServingError):
    """The caller's mistake."""

    status = 400


class MalformedRequest(RequestError):
    """The bytes on the connection cannot be parsed as a request."""

    code = "malformed_request"


class UpgradeRefused(RequestError):
    """The client wants another protocol and sends no plain HTTP request."""

    code = "upgrade_refused"

    def __init__(self) -> None:
        super().__init__("WebSockets are not supported; send a request without Upgrade")


class MalformedBody(RequestError):
    """The body does not match its media type."""

    code = "malformed_body"


class MalformedHeader(RequestError):
    """A header has an invalid value."""

    code = "malformed_header"


class Unauthorized(RequestError):
    """The caller is not authenticated."""

    status = 401
    code = "unauthorized"


class Forbidden(RequestError):
    """The endpoint or option is disabled."""

    status = 403
    code = "forbidden"


class RouteNotFound(RequestError):
    """No such endpoint."""

    status = 404
    code = "not_found"


class VersionNotFound(RequestError):
    """The requested version is not loaded."""

    status = 404
    code = "version_not_found"


class MethodNotAllowed(RequestError):
    """The endpoint exists, for another method."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this endpoint accepts {allowed} only")
        self.headers = [(b"allow", allowed.encode())]


class RequestTimeout(RequestError):
    """The headers or the body did not arrive in time."""

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
        super().__init__(f"the path with its query has more than {limit} bytes")


class UnsupportedMedia(RequestError):
    """The endpoint does not read this Content-Type or Content-Encoding."""

    status = 415
    code = "unsupported_media_type"


class InvalidInput(RequestError):
    """The body can be read, but does not fit the model's signature."""

    status = 422
    code = "invalid_input"


class ModelRefusedInput(RequestError):
    """The rows fit the signature, but the model raised on them."""

    status = 422
    code = "model_refused_input"


class HeadersTooLarge(RequestError):
    """Too many headers or trailers, or too many bytes of them."""

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
    """Too many requests are queued, or they take too much memory."""

    status = 503
    code = "queue_full"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = [(b"retry-after", b"1")]


class ModelBusy(ServingError):
    """The calls before this request take too long."""

    status = 503
    code = "model_busy"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        # A new connection may reach another worker.
        self.headers = [(b"retry-after", b"5"), (b"connection", b"close")]


class FeedbackUnavailable(ServingError):
    """Truths cannot be kept at the moment, or quality was not evaluated yet."""

    status = 503
    code = "feedback_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = [(b"retry-after", b"5")]


class TimedOut(ServingError):
    """The request exceeded its timeout."""

    status = 504
    code = "timed_out"

    def __init__(self) -> None:
        super().__init__(
            "the request timed out (SERVING_REQUEST_TIMEOUT_SECONDS, or X-Request-Timeout if shorter)"
        )


class TooManyConnections(ServingError):
    """The connection limit is reached."""

    status = 503
    code = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("too many connections are open (SERVING_MAX_CONNECTIONS); try again shortly")
        self.headers = [(b"retry-after", b"1")]


class ClientGone(Exception):
    """The client disconnected before the answer."""


class PrepareError(ServingError):
    """Why no model is ready; shown by `/readyz` and in the log."""

    code = "prepare_failed"
    final_after: int | None = None
    """After this many failures a version is not retried until it changes; None if the error may pass."""

    def __init__(self, message: str) -> None:
        super().__init__(redact(message))


class RegistryUnreachable(PrepareError):
    """The tracking server or the artifact store does not answer."""

    code = "registry_unreachable"


class ModelNotFound(PrepareError):
    """No such model, version, alias or artifact."""

    code = "model_not_found"


class ModelRefused(PrepareError):
    """The version was found, but must not be served."""

    code = "model_refused"
    final_after = 1


class OutOfMemory(PrepareError):
    """The version needs more memory than is free; a retry may find more."""

    code = "out_of_memory"
    final_after = 2


class StorageError(PrepareError):
    """The prepared model cannot be written."""

    code = "storage_error"


def from_code(code: str, message: str) -> PrepareError:
    """Returns the error for a code and message from another process."""
    kinds = (RegistryUnreachable, ModelNotFound, ModelRefused, OutOfMemory, StorageError)
    return {kind.code: kind for kind in kinds}.get(code, PrepareError)(message)
