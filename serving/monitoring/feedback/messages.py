"""The body of `POST /v1/feedback` and its answer."""

import math
from typing import Any

import msgspec

from serving.monitoring.feedback.answers import MAX_CHARS
from serving.monitoring.feedback.store import KeyTruth, Store, Truth
from serving.monitoring.quality.answers import MAX_NUMBER, to_number, to_text

MAX_TOLD = 100
"""Unknown ids, and labels that no answer has, in a response."""

MAX_TRUTHS = 200_000
"""Of a body: the keeper takes a few seconds for them, in which all other feedback waits."""

Value = str | bool | int | float


class Invalid(Exception):
    """The body cannot be used; the message says where and what was expected."""

    status = 422


class NotJson(Invalid):
    """The body is not JSON."""

    status = 400


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    request_id: str | None = None
    row: int | None = None
    key: str | int | None = None
    truth: Value | None = None
    truths: list[Value] | None = None


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    feedback: list[_Entry]


_decoder = msgspec.json.Decoder(_Body)

EXPECTED = '{"feedback": [{"request_id": "…", "row": 0, "truth": "yes"}, …]}'


class Feedback:
    """Truths in the order in which they came; of those about one row or key, the last counts."""

    def __init__(self, body: bytes) -> None:
        """Reads a body.

        Raises:
            Invalid: it is something else.
            NotJson: it is not even JSON.
        """
        try:
            entries = _decoder.decode(body).feedback
        except msgspec.ValidationError as error:
            raise Invalid(f"{_place(str(error))}; expected {EXPECTED}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise NotJson(f"the body is not JSON ({error}); expected {EXPECTED}") from None
        self.truths: dict[tuple[str, int], str] = {}
        self.key_truths: dict[str, str] = {}
        self.n_received = 0
        self._positions: dict[Any, int] = {}
        for position, entry in enumerate(entries):
            self._add(position, entry)
            if self.n_received > MAX_TRUTHS:
                raise Invalid(f"the body: expected at most {MAX_TRUTHS:,} truths; send more bodies")

    def _add(self, position: int, entry: _Entry) -> None:
        at = f"feedback[{position}]"
        if (entry.request_id is None) == (entry.key is None):
            raise Invalid(f"{at}: expected request_id or key, one of the two")
        if (entry.truth is None) == (entry.truths is None):
            raise Invalid(f"{at}: expected truth, or truths with one for each row of the request")
        if entry.key is not None:
            if entry.row is not None or entry.truths is not None:
                raise Invalid(f"{at}: row and truths need a request_id")
            key = _text(str(entry.key), f"{at}.key")
            self.key_truths[key] = _truth(entry.truth, f"{at}.truth")
            self._positions[key] = position
            self.n_received += 1
            return
        assert entry.request_id is not None
        request_id = _text(entry.request_id, f"{at}.request_id")
        if entry.truths is not None and entry.row is not None:
            raise Invalid(f"{at}: truths are for all rows, row is for one; expected one of the two")
        first = entry.row or 0
        if not 0 <= first < 2**31:
            raise Invalid(f"{at}.row: expected a row's position, from 0")
        truths = [entry.truth] if entry.truths is None else entry.truths
        for row, truth in enumerate(truths, first):
            where = f"{at}.truth" if entry.truths is None else f"{at}.truths[{row}]"
            self.truths[request_id, row] = _truth(truth, where)
            self._positions[request_id, row] = position
        self.n_received += len(truths)

    def keep(self, model: str, store: Store) -> dict[str, Any]:
        """Keeps the truths; returns the answer.

        Raises:
            Invalid: a truth about a predicted number is none; nothing is kept.
            StoreError: the store fails; nothing is kept.
        """
        truths = [Truth(*at, truth) for at, truth in self.truths.items()]
        key_truths = [KeyTruth(key, truth) for key, truth in self.key_truths.items()]
        found: dict[Any, tuple[str | None, str]] = {
            **store.find(model, truths),
            **store.find_keys(model, list(self.key_truths)),
        }
        for at, truth in (*self.truths.items(), *self.key_truths.items()):
            if at in found and found[at][0] is None and to_number(truth) is None:
                raise Invalid(
                    f"feedback[{self._positions[at]}]: expected a number up to {MAX_NUMBER:g}, as the model predicts"
                )
        store.add_truths(model, truths, key_truths)
        unknown: list[Any] = [
            *({"request_id": one.request_id, "row": one.row_index} for one in truths if one[:2] not in found),
            *({"key": one.key} for one in key_truths if one.key not in found),
        ]
        return {
            "received": self.n_received,
            "matched": len(found),
            "unknown": len(unknown),
            "unknown_ids": unknown[:MAX_TOLD],
            "new_labels": self._new_labels(model, store, found)[:MAX_TOLD],
        }

    def _new_labels(self, model: str, store: Store, found: dict[Any, tuple[str | None, str]]) -> list[str]:
        """Returns truths that the version which answered cannot predict: misspelt ones, perhaps."""
        classes = {
            version: {to_text(name) for name in store.classes(model, version)}
            for version in {version for _, version in found.values()}
        }
        return sorted(
            {
                truth
                for at, truth in (*self.truths.items(), *self.key_truths.items())
                if at in found and found[at][0] is not None
                if classes[found[at][1]] and truth not in classes[found[at][1]]
            }
        )


def _place(message: str) -> str:
    """Returns msgspec's message with its place in front: "Expected `str`, got `int` - at `$.feedback[0].key`"."""
    what, _, place = message.partition(" - at `$")
    return f"{place.strip('`.') or 'the body'}: {what[:1].lower()}{what[1:]}"


def _text(text: str, at: str) -> str:
    if not text or len(text) > MAX_CHARS or "\0" in text:
        raise Invalid(f"{at}: expected 1 to {MAX_CHARS} characters, none of them NUL")
    return text


def _truth(value: Value | None, at: str) -> str:
    """Returns a truth as text."""
    text = to_text(value)
    if text is None or (isinstance(value, float) and not math.isfinite(value)):
        raise Invalid(f"{at}: expected a label or a number")
    return _text(text, at)
