"""Synthetic models of growing size: a forest on 5 to 500 columns, and one of 10 to 1,000 trees.

Runs as a separate process, like `benchmarks.registry`, and adds them to its registry.
"""

import argparse
import hashlib
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from benchmarks.places import BENCHMARKS, ROOT
from benchmarks.registry import export, register, tracking_uri

N_TRAINING_ROWS = 4_000
N_ROWS = 1_000
"""Rows to send."""

MIDDLE_COLUMNS = 20
MIDDLE_TREES = 100


class Size(NamedTuple):
    """A synthetic model."""

    columns: int = MIDDLE_COLUMNS
    trees: int = MIDDLE_TREES

    @property
    def name(self) -> str:
        """The registered model's name."""
        return f"synthetic-{self.columns}-columns-{self.trees}-trees"


COLUMNS = tuple(Size(columns=n) for n in (5, 20, 50, 100, 200, 500))
TREES = tuple(Size(trees=n) for n in (10, 30, 100, 300, 1_000))


def growth_digest(work: Path) -> str:
    """Returns a digest of everything that determines the models."""
    digest = hashlib.sha256((work / "registry" / "digest").read_bytes())
    digest.update((BENCHMARKS / "growth_models.py").read_bytes())
    return digest.hexdigest()


def rows_file(work: Path, size: Size) -> Path:
    """Returns the file of the rows sent to a model."""
    return work / "models" / size.name / "rows.parquet"


def main() -> None:
    """Trains, registers and exports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    work: Path = parser.parse_args().work.resolve()
    os.chdir(work / "registry")
    for folder in (work / "models").glob("synthetic-*"):
        shutil.rmtree(folder)
    for size in dict.fromkeys((*COLUMNS, *TREES)):
        print(f"  training a forest of {size.trees:,} trees on {size.columns} columns", flush=True)
        _make(size, work)
    (work / "registry" / "growth-digest").write_text(growth_digest(work))


def _make(size: Size, work: Path) -> None:
    import pandas as pd
    from mlflow.types import ColSpec, DataType
    from sklearn.datasets import make_classification

    from preprocessing import preprocess
    from scripts.lifecycle.connection import connect
    from scripts.training.columns import column_kinds, make_signature
    from scripts.training.pipeline import build_pipeline
    from serving.settings import load_settings

    # Two columns are redundant and the rest, most of a wide table, is noise. Source: make_classification's
    # default of two redundant features.
    features, target = make_classification(
        N_TRAINING_ROWS, size.columns, n_informative=min(10, size.columns - 2), random_state=0
    )
    table = pd.DataFrame(features, columns=[f"f{i}" for i in range(size.columns)])
    pipeline = build_pipeline(preprocess, column_kinds(table), "classification", "forest", seed=0)
    pipeline.set_params(model__n_estimators=size.trees).fit(table, target)
    signature = make_signature(table, [], ColSpec(DataType.long, "target"))
    client = connect(load_settings().model_copy(update={"tracking_uri": tracking_uri(work)}))
    code = [ROOT / "preprocessing.py"]
    register(client, size.name, pipeline, signature=signature, example=table.head(5), code=code)
    rows = table.head(N_ROWS)
    export(work, size.name, rows)
    rows.to_parquet(rows_file(work, size))


if __name__ == "__main__":
    main()
