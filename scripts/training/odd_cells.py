"""Cells of a column that are not what nearly all the others are, such as `?` among numbers or `n/a` among dates."""

import pandas as pd

MOSTLY = 0.9
"""A column in which more than this share of the cells are numbers, or dates, has mistakes in the rest, rather than texts."""

MAX_PLACEHOLDERS = 3
"""Different texts that stand for a missing value; more of them may mean something."""


def are_few(is_odd: pd.Series, cells: pd.Series) -> bool:
    """True where nearly all cells that are there are not odd."""
    return bool(is_odd.sum() < (1 - MOSTLY) * cells.notna().sum())


def are_placeholders(is_odd: pd.Series, cells: pd.Series) -> bool:
    """True where the odd cells are so few, and so much alike, that they stand for a missing value."""
    return are_few(is_odd, cells) and cells[is_odd].nunique() <= MAX_PLACEHOLDERS


def describe(is_odd: pd.Series, kind: str) -> str:
    """Returns how many cells are none of a kind, such as `numbers`, and where the first is; empty where none is odd."""
    n_odd = int(is_odd.sum())
    return f"{n_odd:,} cells are no {kind}, the first in line {line_of(is_odd)}" if n_odd else ""


def describe_missing(is_odd: pd.Series, kind: str) -> str:
    """The same of cells that are read as missing, and what to do about it."""
    described = describe(is_odd, kind)
    return described and f"{described}, and count as missing (else --category)"


def line_of(is_marked: pd.Series) -> int:
    """Returns the line of the file that the first marked cell is in, where no cell before it has several lines."""
    return int(is_marked.to_numpy().argmax()) + 2  # 1 is the header
