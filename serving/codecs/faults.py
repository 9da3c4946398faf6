"""Collects the faults in a request's rows, so that every wrong column is reported."""

import difflib
import itertools
from collections.abc import Container, Sequence

from serving.codecs.casting import short
from serving.errors import MAX_DETAILS, Detail, InvalidInput

MAX_HINTS, MAX_HINT_LETTERS, MAX_HINT_NAMES = 5, 40, 30
"""Maximum of names per request with a hint, of their length, and of names compared with each: a comparison takes up to
0.1 ms, and callers must not control how many there are."""

HINT_RATIO = 0.7
"""Minimum similarity of two names. Source: `difflib.SequenceMatcher.ratio`."""


class Faults:
    """Up to `MAX_DETAILS` faults of each column, and of each unknown name.

    Args:
        names: the signature's.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._n_enough = 0
        self.is_full = False
        """Whether to stop reading rows: enough rows or columns are wrong to fill the report, or all columns are."""
        self._columns: dict[str | None, list[Detail]] = {}
        self._unknown: dict[str | None, list[Detail]] = {}

    def __bool__(self) -> bool:
        return bool(self._columns or self._unknown)

    def __contains__(self, column: str) -> bool:
        return column in self._columns

    def has_enough(self, column: str | None) -> bool:
        """Whether further rows cannot change the report on a column."""
        return len(self._columns.get(column, ())) >= MAX_DETAILS

    def add(self, column: str | None, detail: Detail) -> None:
        """Keeps a detail; `column` is the signature's name, None if the row itself is wrong."""
        if not _keep(self._columns, column, detail):
            return
        if self.has_enough(column):
            self._n_enough += 1
        self.is_full = (
            self.has_enough(None) or len(self._columns) >= MAX_DETAILS or self._n_enough == len(self._names)
        )

    def add_unknown(self, name: str, got: str, row: int | None, sent: Container[str]) -> None:
        """Keeps an unknown name.

        Args:
            name: as sent.
            got: the type of its value.
            row: that has it, if it is one row.
            sent: the names sent with it, which cannot be meant.
        """
        key = name[:80]  # its shown length
        if key in self._unknown:
            if len(self._unknown[key]) >= MAX_DETAILS:
                return
            expected = self._unknown[key][0].expected
        elif len(self._unknown) < MAX_HINTS:
            expected = "no such column" + did_you_mean(name, [one for one in self._names if one not in sent])
        else:
            expected = "no such column"
        _keep(self._unknown, key, Detail(expected, got, row, short(name)))

    def told(self) -> list[Detail]:
        """Returns up to `MAX_DETAILS` of them: the first of each name, then the second of each, and so on."""
        n_unknown = max(1, MAX_DETAILS - len(self._columns))
        names = [*itertools.islice(self._unknown.values(), n_unknown), *self._columns.values()]
        rounds = itertools.zip_longest(*names)
        told = (detail for details in rounds for detail in details if detail is not None)
        return list(itertools.islice(told, MAX_DETAILS))


def _keep(names: dict[str | None, list[Detail]], name: str | None, detail: Detail) -> bool:
    """Returns whether there was room for it."""
    if name not in names and len(names) >= MAX_DETAILS:
        return False
    details = names.setdefault(name, [])
    if len(details) >= MAX_DETAILS:
        return False
    details.append(detail)
    return True


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """Returns ` (did you mean 'tenure'?)`; empty if no name is close, or comparing them would take too long."""
    if len(name) > MAX_HINT_LETTERS or len(names) > MAX_HINT_NAMES:
        return ""
    known = {one.casefold(): one for one in names if len(one) <= MAX_HINT_LETTERS}
    near = difflib.get_close_matches(name.casefold(), known, 1, HINT_RATIO)
    return f" (did you mean {known[near[0]]!r}?)" if near else ""


def refuse(details: list[Detail]) -> None:
    """Raises `InvalidInput` with the details, the first of them in the message.

    Raises:
        InvalidInput: always.
    """
    details = details[:MAX_DETAILS]
    first = details[0]
    where = " ".join(
        part
        for part in (
            f"row {first.row}" if first.row is not None else "",
            f"column {first.column!r}" if first.column is not None else "",
        )
        if part
    )
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    raise InvalidInput(
        f"the input does not fit the model's signature: {where}{': ' if where else ''}"
        f"expected {first.expected}, got {first.got}{more}",
        details,
    )
