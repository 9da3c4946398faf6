"""What of a request goes to the log: which requests, which columns, and how it looks there."""

import hashlib
import hmac
from typing import Any, NamedTuple

import msgspec
import numpy as np

from serving.codecs.json_answers import array_to_json
from serving.settings import Settings, split_names

KEY = "key"
"""The name of the log's column with the caller's key, for `SERVING_LOG_HASH`."""


class Selection(NamedTuple):
    """The settings of what is logged."""

    share: float
    """Of the requests, 0 to 1."""
    key_column: str | None
    """The input whose value is the row's key; None for the routing key."""
    excluded: frozenset[str]
    """Inputs and parameters; `*` for all."""
    hashed: frozenset[str]
    secret: bytes
    slices: frozenset[str] = frozenset()
    """Inputs by whose values quality is told apart."""

    @classmethod
    def of(cls, settings: Settings) -> "Selection":
        """Returns the selection of a service."""
        secret = settings.log_hash_key
        return cls(
            settings.log_percent / 100,
            settings.log_key,
            frozenset(split_names(settings.log_exclude)),
            frozenset(split_names(settings.log_hash)),
            secret.get_secret_value().encode() if secret else b"",
            frozenset(settings.quality_slice_names),
        )

    def includes(self, request_id: str) -> bool:
        """Whether a request is logged: the same for all models and replicas that answer it."""
        if self.share >= 1:
            return True
        digest = hashlib.blake2b(request_id.encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2**64

    @property
    def hashes_key(self) -> bool:
        """Whether keys are hashed."""
        return KEY in self.hashed or self.key_column in self.hashed

    def hash(self, text: str | None) -> str | None:
        """Returns the hexadecimal HMAC-SHA256 of a text; None for a missing one."""
        return None if text is None else hmac.digest(self.secret, text.encode(), hashlib.sha256).hex()

    def params_to_json(self, params: dict[str, Any]) -> str | None:
        """Returns a request's parameters as in its body, without those that are left out; None if none remain."""
        if not params or "*" in self.excluded:
            return None
        kept = {name: value for name, value in params.items() if name not in self.excluded}
        values = np.empty(len(kept), dtype=object)
        values[:] = list(kept.values())
        return to_json(dict(zip(kept, array_to_json(values), strict=True))) if kept else None

    def unknown_names(self, inputs: list[str], params: list[str]) -> list[str]:
        """Returns the names in the settings that a model has neither among its inputs nor, if excluded, its parameters."""
        of_inputs = self.hashed | self.slices | ({self.key_column} if self.key_column else set())
        wanted = of_inputs | (self.excluded - set(params))
        return sorted(wanted - {*inputs, KEY, "*"})


def to_text(value: Any) -> str | None:
    """Returns a value as text: itself, or its JSON; None if it is missing."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # noqa: PLR0124  # NaN
        return None
    if isinstance(value, bytes):
        return value.hex()
    return to_json(value)


def to_json(value: Any) -> str:
    """Returns a value's JSON text."""
    return msgspec.json.encode(value, enc_hook=_encode_hook).decode()


def _encode_hook(value: Any) -> Any:
    if hasattr(value, "dtype"):
        return array_to_json(value) if value.ndim else value.item()
    return str(value)
