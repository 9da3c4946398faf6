"""The rows that are sent, and what a model says of the first of them."""

import json
from pathlib import Path
from typing import Any, NamedTuple

Record = dict[str, Any]


class Model(NamedTuple):
    """A registered model with its files and its own answers, which servers are compared with."""

    name: str
    folder: Path
    """Holds `mlflow/` (the logged model) and `model.joblib`."""
    columns: dict[str, str]
    """Type by name of column, in the order of the signature; the names are MLflow's."""
    classes: list[str]
    labels: list[str]
    probabilities: list[list[float]]

    @property
    def facts_file(self) -> Path:
        """What this was read from; the servers' own code reads the columns from it, too."""
        return self.folder / "facts.json"


def load_model(work: Path, name: str) -> Model:
    """Reads what `benchmarks.registry` left of a model."""
    folder = work / "models" / name
    facts = json.loads((folder / "facts.json").read_text())
    columns = {column["name"]: column["type"] for column in facts["columns"]}
    return Model(name, folder, columns, facts["classes"], facts["labels"], facts["probabilities"])


def load_records(file: Path) -> list[Record]:
    """Returns the rows as JSON's own types, one dict per row."""
    import pandas as pd

    return [{str(k): v for k, v in row.items()} for row in pd.read_parquet(file).to_dict("records")]
