"""Creates an MLflow registry with the models for all servers, and copies of them as files.

Runs as a separate process (`python -m benchmarks.registry`), to keep MLflow and scikit-learn out of the measuring
one.
"""

import argparse
import hashlib
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.places import BENCHMARKS, ROOT

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

MODELS = ("forest", "linear", "native")
"""The churn pipeline with a forest of 100 trees, with a logistic regression, and the forest after a custom
transformer that cannot be compiled."""

ALIAS = "production"
N_ROWS = 10_000
N_CHECKED_ROWS = 16
"""Rows whose correct answers are stored, to check each server."""


def tracking_uri(folder: Path) -> str:
    """Returns the URI of the registry in a work folder."""
    return f"sqlite:///{folder}/registry/mlflow.db"


def source_digest(data: Path | None, target: str) -> str:
    """Returns a digest of everything that determines the models; if unchanged, they are reused."""
    digest = hashlib.sha256(target.encode())
    code = [ROOT / "preprocessing.py", BENCHMARKS / "registry.py", ROOT / "requirements" / "serving.txt"]
    for folder in (ROOT / "scripts", BENCHMARKS / "models"):
        code += sorted(folder.rglob("*.py"))
    for file in [*code, *([data] if data else [])]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def main() -> None:
    """Trains, registers and exports."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="CSV file (default: a generated sample)")
    parser.add_argument("--target", default="Churn")
    options = parser.parse_args()
    work: Path = options.work.resolve()
    data: Path | None = options.data.resolve() if options.data else None
    shutil.rmtree(work / "registry", ignore_errors=True)
    shutil.rmtree(work / "models", ignore_errors=True)
    (work / "registry").mkdir(parents=True)
    # MLflow puts a sqlite registry's artifacts into `mlruns` of the current folder.
    os.chdir(work / "registry")
    os.environ["MLFLOW_TRACKING_URI"] = tracking_uri(work)

    import joblib  # type: ignore[import-untyped]

    from scripts.train import main as train

    for model in ("forest", "linear"):
        arguments = ["--name", model, "--estimator", model, "--alias", ALIAS, "--promote"]
        if data:
            arguments += ["--data", str(data), "--target", options.target]
        if train(arguments):
            sys.exit(1)
    inputs, labels = _read_table(data, options.target)
    _register_native(inputs, labels)
    rows = inputs.dropna().sample(N_ROWS, replace=True, random_state=0, ignore_index=True)
    rows.to_parquet(work / "rows.parquet")
    for model in MODELS:
        joblib.dump(export(work, model, rows), work / "models" / model / "model.joblib")
    (work / "registry" / "digest").write_text(source_digest(data, options.target))


def _read_table(data: Path | None, target: str) -> "tuple[pd.DataFrame, pd.Series]":
    from scripts.training.churn_sample import TARGET, make_churn_sample
    from scripts.training.table import read_csv, split_target

    rows, target = (read_csv(data).rows, target) if data else (make_churn_sample(seed=0), TARGET)
    table = split_target(rows, target)
    return table.inputs, table.target


def _register_native(inputs: "pd.DataFrame", labels: "pd.Series") -> None:
    from mlflow.types import ColSpec

    from preprocessing import preprocess
    from scripts.lifecycle.connection import connect
    from scripts.training.columns import column_kinds, column_type, ignored_columns, make_signature
    from scripts.training.pipeline import build_pipeline
    from serving.settings import load_settings

    print("training native: the forest after a custom transformer", flush=True)
    kinds = column_kinds(preprocess(inputs))
    pipeline = build_pipeline(preprocess, kinds, "classification", "forest", seed=0)
    # Imported under the name that it has when the model is loaded, from the code path only.
    sys.path.insert(0, str(BENCHMARKS / "models"))
    winsorizer = importlib.import_module("winsorizing").Winsorizer()
    pipeline.steps.insert(-1, ("winsorize", winsorizer))
    pipeline.fit(inputs, labels)
    ignored = ignored_columns(inputs, kinds, preprocess)
    signature = make_signature(inputs, ignored, ColSpec(column_type(labels), str(labels.name)))
    client = connect(load_settings())
    code = [ROOT / "preprocessing.py", BENCHMARKS / "models" / "winsorizing.py"]
    register(client, "native", pipeline, signature=signature, example=inputs.dropna().head(5), code=code)


def register(
    client: "MlflowClient",
    name: str,
    pipeline: Any,
    *,
    signature: Any,
    example: "pd.DataFrame",
    code: list[Path],
) -> None:
    """Logs a pipeline with its code as `scripts/train.py` would, and sets the alias to it."""
    import mlflow.sklearn
    from skops import io

    from scripts.training.registration import MODEL_PACKAGES, Logged, create_version
    from serving.model.hook import DIGEST_KEY, preprocessing_digest

    mlflow.set_experiment(name)
    with mlflow.start_run() as run:
        model = mlflow.sklearn.log_model(
            pipeline,
            name="model",
            signature=signature,
            input_example=example,
            code_paths=[str(file) for file in code],
            metadata={DIGEST_KEY: preprocessing_digest()},
            pip_requirements=list(MODEL_PACKAGES),
            skops_trusted_types=io.get_untrusted_types(data=io.dumps(pipeline)),
        )
        version = create_version(
            client, name, Logged(f"models:/{model.model_id}", model.model_id), run.info.run_id, {}
        )
    client.set_registered_model_alias(name, ALIAS, str(version))


def export(work: Path, name: str, rows: "pd.DataFrame") -> Any:
    """Copies the files of the alias's version, and stores its answers to the first rows.

    Returns:
        The model, loaded from these files.
    """
    import mlflow

    folder = work / "models" / name
    folder.mkdir(parents=True)
    path = mlflow.artifacts.download_artifacts(f"models:/{name}@{ALIAS}", dst_path=str(folder / "mlflow"))
    model = mlflow.sklearn.load_model(path)
    head = rows.head(N_CHECKED_ROWS)
    inputs = mlflow.models.get_model_info(path).signature.inputs
    facts = {
        "columns": [{"name": spec.name, "type": spec.type.name} for spec in inputs],
        "classes": [str(label) for label in model.classes_],
        "labels": [str(label) for label in model.predict(head)],
        "probabilities": model.predict_proba(head).tolist(),
    }
    (folder / "facts.json").write_text(json.dumps(facts))
    return model


if __name__ == "__main__":
    main()
