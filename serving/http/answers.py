"""The wire format of errors from the gateway and, before a request is parsed, from the connection."""

import random
import re
from collections.abc import Iterable

import msgspec

from serving.errors import ServingError

_REQUEST_ID = re.compile(rb"[\w.:/+=-]{1,128}", re.ASCII)


def is_request_id(value: bytes) -> bool:
    """Whether a caller's `X-Request-ID` is safe to echo."""
    return _REQUEST_ID.fullmatch(value) is not None


def new_request_id() -> str:
    """Returns an id for a request without one."""
    return f"{random.getrandbits(128):032x}"


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Returns the caller's id, or a new one."""
    for name, value in headers:
        if name == b"x-request-id" and is_request_id(value):
            return value.decode()
    return new_request_id()


def encode_error(error: ServingError, request_id: str) -> bytes:
    """Returns the body of an error response."""
    return msgspec.json.encode(
        {
            "error": {"code": error.code, "message": str(error), "details": error.details},
            "request_id": request_id,
        }
    )
