"""Decides what each column is to the model: a number, a category, a text, or left out; and makes the signature."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec
from pandas.api import types

from scripts.training import TrainingError

Kind = Literal["number", "category", "text", "date", "drop"]

IDENTIFIER_RATIO = 0.9
"""Share of distinct values above which a column is an identifier."""

MIN_IDENTIFIERS = 50
"""A text column with fewer distinct values is never an identifier."""

MAX_CATEGORIES = 100
"""If a column has more distinct values, the rarest share one category."""

MAX_CODES = 20
"""Maximum distinct numbers that may be codes, some of which may have letters."""

MIN_WORDS = 2.5
"""Minimum mean number of words in a text; names of people and places have two."""

MAX_TEXTS_READ = 5_000
"""Maximum rows that are searched for recurring words."""

_NUMBER = "no|nr|number|nummer|numéro|numero|número|n°|nº"
_IDENTIFIER_NAME = re.compile(
    rf"(^|.*[\W_])(id|key|uuid|guid|index|idx|matricule|{_NUMBER})$|(id|{_NUMBER})[\W_].*|.*(nummer|kennung)$",
    re.IGNORECASE,
)
"""English, German, French and Spanish: `customer_id`, `Kundennummer`, `N° client`."""
_CAMEL_IDENTIFIER = re.compile(r".*[a-z](ID|Id|Key|Uuid|UUID|Nr|No|Number)$")
_WORD = re.compile(r"[^\W\d_]{2,}")


class ColumnKinds(NamedTuple):
    """Column names after preprocessing, by how the pipeline treats them; and why."""

    numbers: list[str]
    categories: list[str]
    """Text categories."""
    codes: list[str]
    """Numeric categories."""
    texts: list[str]
    left_out: list[str]
    why: dict[str, str]

    def kind_of(self, name: str) -> str:
        """Returns a column's kind in words; empty if preprocessing did not return it."""
        for kind, names in (
            ("number", self.numbers),
            ("category", self.categories + self.codes),
            ("text", self.texts),
            ("left out", self.left_out),
        ):
            if name in names:
                return kind
        return ""

    @property
    def used(self) -> list[str]:
        """The columns that the model learns from."""
        return [*self.numbers, *self.categories, *self.codes, *self.texts]


def column_kinds(features: pd.DataFrame, said: Mapping[str, Kind] | None = None) -> ColumnKinds:
    """Returns the kinds of the columns that preprocessing returned; booleans count as numbers.

    Args:
        features: all rows, including those without a target.
        said: kinds given in the options, by column.

    Raises:
        TrainingError: a column is neither number, boolean nor text, or cannot have the kind given, or no column is
            usable.
    """
    kinds = ColumnKinds([], [], [], [], [], {})
    lists = {"number": kinds.numbers, "category": kinds.categories, "code": kinds.codes, "text": kinds.texts}
    for name, column in features.items():
        kind, why = said_kind(column, (said or {}).get(str(name))) or find_kind(column)
        lists.get(kind, kinds.left_out).append(str(name))
        kinds.why[str(name)] = why
    if not kinds.used:
        raise TrainingError(
            "no column is left to learn from: "
            + "; ".join(f"{name!r}: {why}" for name, why in list(kinds.why.items())[:5])
        )
    return kinds


def said_kind(column: pd.Series, said: Kind | None) -> tuple[str, str] | None:
    """Returns the kind given for a column, and the option; None if its kind must be found.

    Raises:
        TrainingError: the column cannot have this kind.
    """
    is_number = is_boolean(column) or types.is_numeric_dtype(column.dtype)
    match said:
        case None | "date":
            return None
        case "drop":
            return "left out", "--drop"
        case "number" if not is_number:
            raise TrainingError(
                f"column {column.name!r} cannot be a number: preprocessing.py returns {column.dtype}"
            )
        case "text" if is_number:
            raise TrainingError(
                f"column {column.name!r} cannot be a text: preprocessing.py returns {column.dtype}"
            )
        case "category" if is_number:
            return "code", f"--category, {column.nunique():,} distinct numbers"
        case "category":
            return "category", f"--category, {describe_categories(column)}"
        case _:
            return said, f"--{said}"


def find_kind(column: pd.Series) -> tuple[str, str]:
    """Returns `number`, `category`, `text` or `left out`, and why.

    Raises:
        TrainingError: it is neither number, boolean nor text.
    """
    if column.nunique(dropna=False) <= 1:
        return "left out", "empty" if column.isna().all() else "one value throughout"
    if is_boolean(column):
        return "number", "true or false"
    if types.is_numeric_dtype(column.dtype):
        why = why_row_number(column)
        return ("left out", why) if why else ("number", describe_numbers(column))
    if not types.is_string_dtype(column.dropna()):
        raise TrainingError(
            f"column {column.name!r} is {column.dtype} after preprocessing; "
            "convert it to numbers, booleans or text in preprocessing.py"
        )
    n_distinct, n_there = column.nunique(), int(column.count())
    if is_prose(column):
        return (
            "text",
            f"{n_distinct:,} distinct texts of {mean_words(column):.0f} words on average, TF-IDF of the words",
        )
    if n_distinct >= MIN_IDENTIFIERS and n_distinct > IDENTIFIER_RATIO * n_there:
        return (
            "left out",
            f"identifier: {n_distinct:,} distinct values in {n_there:,} rows (override: --text or --category)",
        )
    return "category", describe_categories(column)


def is_boolean(column: pd.Series) -> bool:
    """True if all present values are booleans, also in an object column."""
    return types.is_bool_dtype(column.dtype) or pd.api.types.infer_dtype(column, skipna=True) == "boolean"


def why_row_number(column: pd.Series) -> str:
    """Returns why integers number the rows rather than describe them; empty if they do not.

    They do if they are a saved table's index, rise or fall without large gaps, or are distinct under a name such as
    `id`.
    """
    there = column.dropna()
    if there.empty or (types.is_float_dtype(there.dtype) and (there % 1 != 0).any()):
        return ""
    first, last = there.iloc[0], there.iloc[-1]
    name = str(column.name)
    if re.fullmatch(r"Unnamed: [0-9]+", name):  # pandas' substitute for an empty name
        return "identifier: the index that the table was saved with"
    n_distinct = there.nunique()
    is_one_by_one = n_distinct == len(there) and bool((there.diff().dropna().abs() == 1).all())
    if is_one_by_one and first in (0, 1) and last > first:
        return f"identifier: it counts the rows from {first:.0f}"
    if n_distinct < MIN_IDENTIFIERS or n_distinct <= IDENTIFIER_RATIO * len(there):
        return ""
    otherwise = "(override: --number)"
    if _IDENTIFIER_NAME.fullmatch(name) or _CAMEL_IDENTIFIER.fullmatch(name):
        return (
            f"identifier: its name, and {n_distinct:,} distinct integers in {len(there):,} rows {otherwise}"
        )
    is_sorted = there.is_monotonic_increasing or there.is_monotonic_decreasing
    if is_sorted and n_distinct == len(column) and n_distinct * 2 >= abs(last - first) + 1:
        return f"identifier: it numbers the rows from {first:.0f} to {last:.0f} {otherwise}"
    return ""


def is_prose(column: pd.Series) -> bool:
    """True if texts differ, but share words with other rows: a model can learn from the words."""
    there = column.dropna().astype("str")
    if there.nunique() <= min(MIN_IDENTIFIERS, len(there) / 2) or mean_words(there) < MIN_WORDS:
        return False
    words = [set(_WORD.findall(text.lower())) for text in there.iloc[:: 1 + len(there) // MAX_TEXTS_READ]]
    n_rows_with = Counter(word for found in words for word in found)
    telling = {word for word, n in n_rows_with.items() if 1 < n <= 0.95 * len(words)}
    return sum(1 for found in words if found & telling) >= len(words) / 2


def mean_words(column: pd.Series) -> float:
    """Returns how many words the texts have on average."""
    return float(column.dropna().astype("str").str.count(r"\S+").mean())


def describe_numbers(column: pd.Series) -> str:
    """Describes the numbers of a column in a few words."""
    span = f"from {column.min():g} to {column.max():g}"
    if not types.is_integer_dtype(column.dtype):
        return f"numbers {span}"
    if 2 < column.nunique() <= MAX_CODES:
        return f"whole numbers {span}, {column.nunique()} distinct (override: --category)"
    return f"whole numbers {span}"


def describe_categories(column: pd.Series) -> str:
    """Describes the categories of a column in a few words."""
    n_distinct = column.nunique()
    if n_distinct <= MAX_CATEGORIES:
        return f"{n_distinct:,} distinct values"
    return f"{n_distinct:,} distinct values: a category for each of the {MAX_CATEGORIES - 1} commonest, one for the rest"


def ignored_columns(
    inputs: pd.DataFrame, kinds: ColumnKinds, preprocess: Callable[[pd.DataFrame], pd.DataFrame]
) -> list[str]:
    """Returns the raw columns that requests may omit: no feature depends on them.

    A column that preprocessing itself reads is required, even if no transformer takes it.
    """
    head = inputs.head(100)
    expected = preprocess(head)[kinds.used]
    ignored = []
    for name in kinds.left_out:
        if name not in inputs:
            continue
        try:
            unchanged = preprocess(head.drop(columns=name))[kinds.used].equals(expected)
        except Exception:  # noqa: BLE001  # the user's code may raise anything; it needs the column
            unchanged = False
        if unchanged:
            ignored.append(name)
    return ignored


def make_signature(inputs: pd.DataFrame, ignored: list[str], output: ColSpec) -> ModelSignature:
    """Returns the signature of the raw rows: the columns that requests must have, and those they may omit.

    Every column that the model learns from is required, so that omitting one is an error.
    """
    columns: list[ColSpec | TensorSpec] = [
        ColSpec(
            column_type(column),
            str(name),
            required=str(name) not in ignored and not is_optional(column),
        )
        for name, column in inputs.items()
    ]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([output]))


def is_optional(column: pd.Series) -> bool:
    """True for booleans with missing cells, which only `required: false` allows; other types have null."""
    return is_boolean(column) and bool(column.isna().any())


def describe_missing_cells(column: pd.Series) -> str:
    """Returns whether requests may omit a column whose type has no null; empty if its type has null."""
    if is_optional(column):
        return "requests may omit it"
    if is_boolean(column):
        return "cannot be missing in requests"
    return (
        "cannot be missing in requests (override: --number)" if types.is_integer_dtype(column.dtype) else ""
    )


def column_type(column: pd.Series) -> DataType:
    """Returns MLflow's type for a column of NumPy dtype."""
    if is_boolean(column):
        return DataType.boolean
    if types.is_integer_dtype(column.dtype):
        return DataType.long
    if types.is_float_dtype(column.dtype):
        return DataType.double
    if types.is_datetime64_dtype(column.dtype):
        return DataType.datetime
    return DataType.string
