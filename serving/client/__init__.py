"""A client that needs only the service's URL: `Client`, and `AsyncClient` for asyncio.

It depends on httpx and NumPy, and on nothing else of this project: the folder can be copied into another one. pandas
and pyarrow are used if they are installed and rows of theirs are passed.
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
