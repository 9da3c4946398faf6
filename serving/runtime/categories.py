"""The categories inside boosters of XGBoost and LightGBM, from pandas' `category` columns.

A signature has no such type: it has the categories' type, and so have request rows. The model's file has the
categories; the trees split by their positions.
"""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.errors import ModelRefused

TEXT, NUMBER, INTEGER, BOOLEAN = "O", "f", "i", "b"
"""A column's content: the kind of its NumPy dtype."""

NO_CATEGORY = -1
"""The code of a missing or unknown category, which both libraries, and pandas, treat alike."""

_INTEGER_DTYPES = {9: "i1", 10: "u1", 11: "i2", 12: "u2", 13: "i4", 15: "i8"}
"""Source: XGBoost, include/xgboost/json.h, Value::ValueKind, of its typed arrays."""


class Categories(NamedTuple):
    """The categories of one column, in the order of their codes."""

    values: Sequence[Any]
    """Texts, numbers or booleans."""
    dtype: str
    """NumPy's name of their dtype in pandas; XGBoost compares it."""

    def codes(self, kind: str) -> dict[Any, int]:
        """Returns the code of each category, for a column of that kind."""
        codes = {value: code for code, value in enumerate(self.values)}
        if kind == TEXT and not all(isinstance(value, str) for value in self.values):
            codes |= {str(value): code for value, code in codes.items()}
        return codes


def lightgbm_categories(booster: Any, kinds: Sequence[str]) -> dict[int, Categories]:
    """Returns the categories by position of their column.

    Args:
        booster: a LightGBM Booster.
        kinds: of its columns.

    Raises:
        ModelRefused: its file does not say which columns they belong to.
    """
    known = booster.pandas_categorical
    if not known:
        return {}
    header = booster.model_to_string(num_iteration=1).partition("\nTree=")[0]
    lines = (line.partition("=") for line in header.splitlines())
    infos = next(value for key, _, value in lines if key == "feature_infos").split(" ")
    positions = _find_columns(known, kinds, infos) if len(infos) == len(kinds) else None
    if positions is None:
        raise ModelRefused(
            "LightGBM's file does not say which columns its categories belong to; train it on categories of text"
        )
    return {
        position: Categories(values, np.array(values).dtype.name)
        for position, values in zip(positions, known, strict=True)
    }


def xgboost_categories(booster: Any, kinds: Sequence[str]) -> dict[int, Categories]:
    """Returns the categories by position of their column.

    Args:
        booster: an XGBoost Booster.
        kinds: of its columns.

    Raises:
        ModelRefused: a column of text has none.
    """
    if "c" not in (booster.feature_types or ()):
        return {}
    learner = json.loads(bytes(booster.save_raw("json")))["learner"]
    boosting = learner["gradient_booster"]
    found = dict(_stored(boosting.get("gbtree", boosting)["model"].get("cats", {}).get("enc", [])))
    if any(kind == TEXT and position not in found for position, kind in enumerate(kinds)):
        raise ModelRefused(
            "XGBoost's file lacks the categories of a text column, as versions before 3.1 do not save them; train it "
            "again with a later one"
        )
    return found


def _stored(columns: list[dict[str, Any]]) -> Iterator[tuple[int, Categories]]:
    """The categories in a file, by position.

    Raises:
        ModelRefused: they are truncated.

    Source: XGBoost, src/data/cat_container.cc, CatContainer::Save; xgboost/_data_utils.py, npstr_to_arrow_strarr,
    which counts characters instead of bytes.
    """
    for position, column in enumerate(columns):
        if "type" in column:
            yield position, Categories(column["values"], np.dtype(_INTEGER_DTYPES[column["type"]]).name)
        elif column["values"] or len(column["offsets"]) > 1:
            # Non-ASCII characters have negative bytes.
            if min(column["values"], default=0) < 0:
                raise ModelRefused(
                    "XGBoost has truncated its categories in the file, as it does with non-ASCII characters; train it on "
                    "categories of ASCII text or of integers"
                )
            text = bytes(column["values"]).decode()
            ends = itertools.pairwise(column["offsets"])
            yield position, Categories([text[start:stop] for start, stop in ends], "str")


def _find_columns(known: list[list[Any]], kinds: Sequence[str], infos: list[str]) -> list[int] | None:
    """The columns that the lists of categories belong to, in their order; None if that is ambiguous.

    LightGBM saves the lists in the order of their columns, and for each column either the codes that the trees know,
    `2:0:1`, or the smallest and largest number, `[0:2]`: the latter for ordered categories, and for columns without
    categories. A text column always has categories.
    """
    n_columns, n_lists = len(kinds), len(known)
    # For the columns and lists from each position on: the score of the best assignment, how many are as good, and
    # whether the column is in it. At the end, all lists must be assigned.
    best: list[list[tuple[int, int, bool]]] = [
        [(0, int(left == n_lists), False) for left in range(n_lists + 1)] for _ in range(n_columns + 1)
    ]
    for column in range(n_columns - 1, -1, -1):
        for one in range(n_lists + 1):
            score, n_ways, taken = *best[column + 1][one][:2], False
            if kinds[column] == TEXT:
                n_ways = 0
            if one < n_lists and _may_be_of(known[one], kinds[column], infos[column]):
                more, more_ways, _ = best[column + 1][one + 1]
                more += _fitness(known[one], kinds[column], infos[column])
                if more_ways and (not n_ways or more > score):
                    score, n_ways, taken = more, more_ways, True
                elif more_ways and more == score:
                    n_ways += more_ways
            best[column][one] = score, n_ways, taken
    if best[0][0][1] != 1:
        return None
    positions: list[int] = []
    for column in range(n_columns):
        if best[column][len(positions)][2]:
            positions.append(column)
    return positions


_TYPES: dict[str, set[type]] = {BOOLEAN: {bool}, INTEGER: {int, float}, NUMBER: {int, float}}
"""Types of categories that a column may have; a text column may have any."""


def _may_be_of(values: list[Any], kind: str, info: str) -> bool:
    types = {type(value) for value in values}
    if kind != TEXT and not types <= _TYPES.get(kind, set()):
        return False
    if info == "none":
        return True
    codes = [float(code) for code in info.strip("[]").split(":")]
    return all(code.is_integer() and NO_CATEGORY <= code < len(values) for code in codes)


def _fitness(values: list[Any], kind: str, info: str) -> int:
    """The score of an assignment: the type counts more than codes, which columns declared categorical have."""
    is_whole = all(type(value) is int for value in values)
    has_codes = not info.startswith("[") and info != "none"
    return 2 * (kind == (INTEGER if is_whole else NUMBER)) + has_codes


def category_codes(cells: npt.NDArray[Any], codes: Mapping[Any, int]) -> npt.NDArray[np.intp]:
    """Returns the codes of a column's cells."""
    return np.fromiter((codes.get(cell, NO_CATEGORY) for cell in cells.tolist()), np.intp, len(cells))
