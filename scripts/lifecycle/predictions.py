"""What a registered version says of rows, by the way that its requests go."""

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.training_rows import Overlap, find_overlap
from scripts.training.registration import reason
from serving.errors import InvalidInput, PrepareError
from serving.runtime import Output
from serving.settings import Settings


class Answers(NamedTuple):
    """Of one version."""

    version: str
    output: Output
    classes: list[Any] | None
    overlap: Overlap | None
    """Rows that it is known by, and that were asked."""


def answer_rows(settings: Settings, name: str, version: str, rows: pd.DataFrame) -> Answers:
    """Pulls a version, lets it pass the checks of its files, and asks it.

    Args:
        settings: of the service; what it would refuse to load is refused here.
        name: the registered model.
        version: its number.
        rows: columns that the signature does not have are left out.

    Raises:
        LifecycleError: it cannot be pulled, must not be loaded, or refuses the rows.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    who = f"{name!r} version {version}"
    with tempfile.TemporaryDirectory() as folder:
        try:
            target = Path(folder, "mlflow")  # by which the runtime tells one model's code from another's
            target.mkdir()
            path = mlflow.artifacts.download_artifacts(f"models:/{name}/{version}", dst_path=str(target))
        except (MlflowException, OSError) as error:
            raise LifecycleError(f"{who} cannot be fetched: {type(error).__name__}") from None
        try:
            return _answer(Path(path), settings, version, rows)
        except PrepareError as error:
            raise LifecycleError(f"{who} is refused: {error}") from None
        except InvalidInput as error:
            raise LifecycleError(f"{who} does not take the rows: {error}") from None
        except Exception as error:  # noqa: BLE001  # the model's own code may raise anything
            raise LifecycleError(
                f"{who} does not take the rows: {type(error).__name__}: {reason(error)}"
            ) from None


def _answer(folder: Path, settings: Settings, version: str, rows: pd.DataFrame) -> Answers:
    import msgspec
    import yaml

    from serving.codecs.json import JsonDecoder
    from serving.prepare.files import check_files, load, schema_of
    from serving.protocols.v1 import encode_hook

    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    schema = schema_of(mlmodel)
    files = check_files(folder, mlmodel, settings)
    columns = [column for column in schema.names if column in rows]
    records = rows[columns].astype(object).where(rows[columns].notna(), None).to_dict("records")
    body = msgspec.json.encode({"instances": records}, enc_hook=encode_hook)
    inputs, params = JsonDecoder(schema, len(rows)).predict(body)
    runtime, _ = load(folder, schema, files, settings)
    overlap = find_overlap(folder, mlmodel, schema, inputs)
    return Answers(version, runtime.predict(inputs, params), runtime.description.classes, overlap)
