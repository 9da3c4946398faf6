"""Odd cells of a column, such as `?` among numbers or `n/a` among dates."""

import pandas as pd

MOSTLY = 0.9
"""If more than this share of a column's cells are numbers, or dates, the rest are mistakes rather than texts."""

MAX_PLACEHOLDERS = 3
"""Maximum distinct texts that stand for a missing value; more of them may carry meaning."""


def are_few(is_odd: pd.Series, cells: pd.Series) -> bool:
    """True if only a few of the cells that are not missing are odd."""
    return bool(is_odd.sum() < (1 - MOSTLY) * cells.notna().sum())


def are_placeholders(is_odd: pd.Series, cells: pd.Series) -> bool:
    """True if the odd cells are so few, and so alike, that they stand for a missing value."""
    return are_few(is_odd, cells) and cells[is_odd].nunique() <= MAX_PLACEHOLDERS


def describe(is_odd: pd.Series, kind: str) -> str:
    """Returns how many cells are not of a kind, such as `numbers`, and where the first is; empty if none is odd."""
    n_odd = int(is_odd.sum())
    return f"{n_odd:,} cells are not {kind}, the first in line {line_of(is_odd)}" if n_odd else ""


def describe_missing(is_odd: pd.Series, kind: str) -> str:
    """The same for cells that count as missing, with the option to override that."""
    described = describe(is_odd, kind)
    return described and f"{described}, and count as missing (override: --category)"


def line_of(is_marked: pd.Series) -> int:
    """Returns the file's line of the first marked cell, if no cell before it spans several lines."""
    return int(is_marked.to_numpy().argmax()) + 2  # 1 is the header
