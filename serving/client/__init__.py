"""A client for programs that know the service's URL and nothing else of it: `Client`, and `AsyncClient` for asyncio.

It needs httpx and NumPy, and nothing else of this project: the folder can be copied into another one. Of pandas and
pyarrow it uses what is there, if rows of theirs are handed in.
"""

from .clients import AsyncClient, Client
from .errors import (
    ClientError,
    Detail,
    InvalidInput,
    Refused,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    VersionChanged,
)

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "Detail",
    "InvalidInput",
    "Refused",
    "TimedOut",
    "Unavailable",
    "UnexpectedAnswer",
    "Unreachable",
    "VersionChanged",
]
