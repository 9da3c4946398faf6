"""The rows to send, and the model's own answers to the first of them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]


class Model(NamedTuple):
    """A registered model with its files and its own answers, the reference for servers."""

    name: str
    folder: Path
    """Contains `mlflow/` (the logged model) and `model.joblib`."""
    columns: dict[str, str]
    """MLflow's type by column name, in the order of the signature."""
    classes: list[str]
    labels: list[str]
    probabilities: list[list[float]]

    @property
    def facts_file(self) -> Path:
        """The source of this object; the servers' code also reads the columns from it."""
        return self.folder / "facts.json"


def load_model(work: Path, name: str) -> Model:
    """Reads a model that `benchmarks.registry` exported."""
    folder = work / "models" / name
    facts = json.loads((folder / "facts.json").read_text())
    columns = {column["name"]: column["type"] for column in facts["columns"]}
    return Model(name, folder, columns, facts["classes"], facts["labels"], facts["probabilities"])


def load_records(file: Path) -> list[Record]:
    """Returns the rows as JSON types, one dict per row."""
    import pandas as pd

    return [{str(k): v for k, v in row.items()} for row in pd.read_parquet(file).to_dict("records")]
