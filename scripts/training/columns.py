"""What each column is to a model: a number, a category, a text, or nothing; and the signature that follows."""

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
"""A column is an identifier where more than this share of its values occur once only."""

MIN_IDENTIFIERS = 50
"""With fewer distinct values than this, a text column is never called an identifier."""

MAX_CATEGORIES = 100
"""Of a column with more distinct values, the rarest are one category together."""

MAX_CODES = 20
"""Distinct numbers that are so few may be codes, of which some have letters."""

MIN_WORDS = 2.5
"""Texts have at least as many words on average; names of people and places have two."""

MAX_TEXTS_READ = 5_000
"""Rows in which words are looked for that occur again."""

_NUMBER = "no|nr|number|nummer|numéro|numero|número|n°|nº"
_IDENTIFIER_NAME = re.compile(
    rf"(^|.*[\W_])(id|key|uuid|guid|index|idx|matricule|{_NUMBER})$|(id|{_NUMBER})[\W_].*|.*(nummer|kennung)$",
    re.IGNORECASE,
)
"""English, German, French and Spanish: `customer_id`, `Kundennummer`, `N° client`."""
_CAMEL_IDENTIFIER = re.compile(r".*[a-z](ID|Id|Key|Uuid|UUID|Nr|No|Number)$")
_WORD = re.compile(r"[^\W\d_]{2,}")


class ColumnKinds(NamedTuple):
    """The names of the columns after preprocessing, by what the pipeline does with them; and why."""

    numbers: list[str]
    categories: list[str]
    """Of text."""
    codes: list[str]
    """Categories that are numbers."""
    texts: list[str]
    left_out: list[str]
    why: dict[str, str]

    def kind_of(self, name: str) -> str:
        """Returns what a column is, for people; empty where preprocessing did not return it."""
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
    """Sorts the columns that preprocessing returned; true/false counts as a number.

    Args:
        features: all rows, those without a target among them.
        said: kinds that the user has given, by column.

    Raises:
        TrainingError: a column is neither number, true/false nor text, cannot be what it is said to be, or no column
            is of use.
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
    """Returns what the user wants a column to be; None where nothing was said that holds after preprocessing.

    Raises:
        TrainingError: it cannot be that.
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
        TrainingError: it is neither number, true/false nor text.
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
            "let preprocessing.py turn it into numbers, true/false or text"
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
            f"identifier: {n_distinct:,} distinct values in {n_there:,} rows (else --text or --category)",
        )
    return "category", describe_categories(column)


def is_boolean(column: pd.Series) -> bool:
    """True where all values that are there are true or false, also in an object column."""
    return types.is_bool_dtype(column.dtype) or pd.api.types.infer_dtype(column, skipna=True) == "boolean"


def why_row_number(column: pd.Series) -> str:
    """Returns why integers number the rows rather than describe them; empty where they do not.

    That is the index that a table was saved with, integers that rise or fall without large gaps, or distinct
    integers under a name such as `id`.
    """
    there = column.dropna()
    if there.empty or (types.is_float_dtype(there.dtype) and (there % 1 != 0).any()):
        return ""
    first, last = there.iloc[0], there.iloc[-1]
    name = str(column.name)
    if re.fullmatch(r"Unnamed: [0-9]+", name):  # pandas' name for an empty one
        return "identifier: the index that the table was saved with"
    n_distinct = there.nunique()
    is_one_by_one = n_distinct == len(there) and bool((there.diff().dropna().abs() == 1).all())
    if is_one_by_one and first in (0, 1) and last > first:
        return f"identifier: it counts the rows from {first:.0f}"
    if n_distinct < MIN_IDENTIFIERS or n_distinct <= IDENTIFIER_RATIO * len(there):
        return ""
    otherwise = "(else --number)"
    if _IDENTIFIER_NAME.fullmatch(name) or _CAMEL_IDENTIFIER.fullmatch(name):
        return (
            f"identifier: its name, and {n_distinct:,} distinct integers in {len(there):,} rows {otherwise}"
        )
    is_sorted = there.is_monotonic_increasing or there.is_monotonic_decreasing
    if is_sorted and n_distinct == len(column) and n_distinct * 2 >= abs(last - first) + 1:
        return f"identifier: it numbers the rows from {first:.0f} to {last:.0f} {otherwise}"
    return ""


def is_prose(column: pd.Series) -> bool:
    """True where texts consist of words that other rows have, too: their words say something, each text does not."""
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
    """Returns in a few words which numbers a column has."""
    span = f"from {column.min():g} to {column.max():g}"
    if not types.is_integer_dtype(column.dtype):
        return f"numbers {span}"
    if 2 < column.nunique() <= MAX_CODES:
        return f"whole numbers {span}, {column.nunique()} of them (else --category)"
    return f"whole numbers {span}"


def describe_categories(column: pd.Series) -> str:
    """Returns in a few words how many categories a column has."""
    n_distinct = column.nunique()
    if n_distinct <= MAX_CATEGORIES:
        return f"{n_distinct:,} distinct values"
    return f"{n_distinct:,} distinct values, the {MAX_CATEGORIES - 1} commonest by themselves, the others together"


def ignored_columns(
    inputs: pd.DataFrame, kinds: ColumnKinds, preprocess: Callable[[pd.DataFrame], pd.DataFrame]
) -> list[str]:
    """Returns the raw columns that can be left out of a request: no number changes without them.

    A column that preprocessing itself reads is not among them, even if no transformer takes it.
    """
    head = inputs.head(100)
    expected = preprocess(head)[kinds.used]
    ignored = []
    for name in kinds.left_out:
        if name not in inputs:
            continue
        try:
            unchanged = preprocess(head.drop(columns=name))[kinds.used].equals(expected)
        except Exception:  # noqa: BLE001  # whatever the user's code raises, it wanted the column
            unchanged = False
        if unchanged:
            ignored.append(name)
    return ignored


def make_signature(inputs: pd.DataFrame, ignored: list[str], output: ColSpec) -> ModelSignature:
    """Returns the contract of the raw rows: what a request must hold, and what it may leave out.

    Every column that the model learns from is required, so that nobody leaves out what it needs without a word.
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
    """True where true or false is missing here and there, which only `required: false` allows; other types have null."""
    return is_boolean(column) and bool(column.isna().any())


def describe_missing_cells(column: pd.Series) -> str:
    """Returns what requests may or must do about a column whose type has no missing value; empty where it has one."""
    if is_optional(column):
        return "requests may leave it out"
    if is_boolean(column):
        return "never missing in requests"
    return "never missing in requests (else --number)" if types.is_integer_dtype(column.dtype) else ""


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
