"""Predictions of a registered version for rows, computed as for requests."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from pandas.api import types

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.connection import reason
from scripts.lifecycle.training_rows import Overlap, find_overlap
from scripts.training import TrainingError
from scripts.training.csv_format import to_numbers
from scripts.training.dates import parse_dates
from scripts.training.odd_cells import are_few
from scripts.training.table import CsvFile
from serving.errors import InvalidInput, PrepareError
from serving.model.schema import Column, Kind
from serving.runtime import Output
from serving.settings import Settings


class Answers(NamedTuple):
    """The predictions of one version."""

    version: str
    output: Output
    classes: list[Any] | None
    overlap: Overlap | None
    """Rows logged with it that are among those predicted."""


def answer_rows(settings: Settings, name: str, version: str, csv: CsvFile) -> Answers:
    """Pulls a version, checks its files, and predicts rows.

    Args:
        settings: of the service; what it would refuse to load is refused here, too.
        name: the registered model.
        version: its number.
        csv: its rows; columns that the signature does not have are left out.

    Raises:
        LifecycleError: it cannot be pulled, must not be loaded, or refuses the rows.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    who = f"{name!r} version {version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            target = Path(folder, "mlflow")  # by this the runtime tells models' code apart
            target.mkdir()
            path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(target))
        except (MlflowException, OSError) as error:
            raise LifecycleError(f"{who} cannot be fetched: {type(error).__name__}") from None
        try:
            return _answer(Path(path), settings, version, csv)
        except PrepareError as error:
            raise LifecycleError(f"{who} is refused: {error}") from None
        except InvalidInput as error:
            raise LifecycleError(f"{who} does not take the rows: {error}") from None
        except Exception as error:  # noqa: BLE001  # the model's own code may raise anything
            raise LifecycleError(
                f"{who} does not take the rows: {type(error).__name__}: {reason(error)}"
            ) from None


def _answer(folder: Path, settings: Settings, version: str, csv: CsvFile) -> Answers:
    import msgspec
    import yaml

    from serving.codecs.json import JsonDecoder
    from serving.codecs.json_answers import encode_hook
    from serving.prepare.files import check_files, load, schema_of

    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    schema = schema_of(mlmodel)
    files = check_files(folder, mlmodel, settings)
    cells = {column.name: cells_of(csv, column) for column in schema.columns if column.name in csv.rows}
    rows = pd.DataFrame(cells, index=csv.rows.index)
    records = rows.astype(object).where(rows.notna(), None).to_dict("records")
    body = msgspec.json.encode({"instances": records}, enc_hook=encode_hook)
    inputs, params = JsonDecoder(schema, len(rows)).predict(body)
    runtime, _ = load(folder, schema, files, settings)
    overlap = find_overlap(folder, mlmodel, schema, inputs)
    return Answers(version, runtime.predict(inputs, params), runtime.description.classes, overlap)


def cells_of(csv: CsvFile, column: Column) -> pd.Series:
    """Returns a column of a file by its type in a signature: texts as written, dates parsed."""
    name = str(column.name)
    cells = csv.as_written[name]
    if column.type.kind is Kind.STRING:
        return cells
    # Like `train.py`, these two accept a few odd cells; with more, the service says what is wrong.
    if column.type.kind is Kind.DATETIME:
        with contextlib.suppress(TrainingError):
            dates = parse_dates(cells, None)
            return dates.moments if are_few(dates.is_odd, cells) else cells
        return cells
    if column.type.kind in {Kind.DOUBLE, Kind.FLOAT} and types.is_string_dtype(csv.rows[name]):
        numbers = to_numbers(cells, csv.decimal)
        return numbers if are_few(numbers.isna() & cells.notna(), cells) else csv.rows[name]
    return csv.rows[name]
