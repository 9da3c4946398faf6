"""Models as users register them, of every kind that is served, on real data."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.multioutput import MultiOutputClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from tests.support.environment import tracking
from tests.support.shared import once

DATABASE = "mlflow.db"
EXPERIMENT = "tests"

TREE = ["sklearn.tree._tree.Tree"]

REQUIREMENTS: dict[str, Any] = {"pip_requirements": ["scikit-learn"]}
"""Given, so that MLflow does not import each model once more in a process of its own to find out."""


def fill_registry(folder: Path, models: dict[str, Callable[[str], Any]], artifacts: str | None = None) -> str:
    """Makes a registry in the folder and registers the models as `production`; returns its URI.

    Args:
        folder: for the registry.
        models: what logs each, by its name.
        artifacts: the URI for their files, if they are not to lie beside the registry.
    """
    uri = copy_registry(once("empty", _make_tables), folder)
    with tracking(uri):
        mlflow.set_experiment(
            experiment_id=mlflow.create_experiment(EXPERIMENT, artifacts or (folder / "artifacts").as_uri())
        )
        for name, log in models.items():
            register(name, log)
    return uri


def copy_registry(registry: Path, folder: Path) -> str:
    """Copies a registry, but not its artifacts, into a folder; returns the URI of the copy."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(registry / DATABASE, folder / DATABASE)
    return f"sqlite:///{folder}/{DATABASE}"


def _make_tables(folder: Path) -> None:
    with tracking(f"sqlite:///{folder}/{DATABASE}"):
        mlflow.MlflowClient().search_experiments()


def register(name: str, log: Callable[[str], Any], alias: str | None = "production") -> str:
    """Logs and registers one version; returns its number."""
    # By its name: in a copy of a registry, MLflow's active experiment is one of another registry, or none.
    ours = mlflow.get_experiment_by_name(EXPERIMENT)
    with mlflow.start_run(experiment_id=ours.experiment_id if ours else None):
        info = log(name)
    version = str(info.registered_model_version)
    if alias is not None:
        mlflow.MlflowClient().set_registered_model_alias(name, alias, version)
    return version


def frame(name: str) -> pd.DataFrame:
    """The rows that a model of the registry was trained on."""
    return FRAMES[name]()


def cancer(name: str) -> Any:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = RandomForestClassifier(30, random_state=0).fit(X, y)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
        input_example=X.head(3),
        skops_trusted_types=TREE,
    )


def wine(name: str) -> Any:
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(X, y)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


def iris(name: str) -> Any:
    data = load_iris(as_frame=True)
    labels = pd.Series(data.target_names, dtype=object)[data.target].to_numpy()
    model = GradientBoostingClassifier(n_estimators=20, random_state=0).fit(data.data, labels)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(data.data, model.predict(data.data)),
        input_example=data.data.head(2),
        skops_trusted_types=[*TREE, "_loss.CyHalfMultinomialLoss", "sklearn._loss.link.Interval"],
        serialization_format="cloudpickle",
    )


def digits(name: str) -> Any:
    X, y = load_digits(return_X_y=True)
    model = RandomForestClassifier(20, random_state=0).fit(X, y)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
        input_example=X[:2],
        skops_trusted_types=TREE,
    )


def diabetes(name: str) -> Any:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    model = RandomForestRegressor(20, random_state=0).fit(X, y)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
        input_example=X.head(2),
        skops_trusted_types=TREE,
    )


def multi_regression(name: str) -> Any:
    X, y = load_diabetes(return_X_y=True, as_frame=True)
    targets = np.column_stack([y, -y, y**2])
    model = LinearRegression().fit(X, targets)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


def multi_classification(name: str) -> Any:
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), MultiOutputClassifier(NearestCentroid())).fit(
        X, np.column_stack([y, y % 2])
    )
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


def no_probabilities(name: str) -> Any:
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LinearSVC()).fit(X, y)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


def clusters(name: str) -> Any:
    X, _ = load_wine(return_X_y=True, as_frame=True)
    model = GaussianMixture(3, random_state=0).fit(X)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


def strict_categories(name: str) -> Any:
    """Raises on a category that it does not know, as scikit-learn's encoder does by default."""
    X = pd.DataFrame({"colour": ["red", "green", "blue"] * 10, "size": np.arange(30.0)})
    y = np.arange(30) % 2
    model = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["colour"]), remainder="passthrough"), LogisticRegression()
    ).fit(X, y)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
        input_example=X.head(2),
    )


def strict_without_example(name: str) -> Any:
    """The same behind imputers, as most people log it: an example has to be made that it does not refuse."""
    X = pd.DataFrame({"colour": ["red", "green", "blue"] * 10, "size": np.arange(30.0)})
    encode = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    model = make_pipeline(
        make_column_transformer((encode, ["colour"]), remainder="passthrough"), LogisticRegression()
    ).fit(X, np.arange(30) % 2)
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
        skops_trusted_types=["numpy.dtype"],
    )


def xgboost_estimator(name: str) -> Any:
    import xgboost

    X, y = load_wine(return_X_y=True, as_frame=True)
    model = xgboost.XGBClassifier(n_estimators=10, n_jobs=1).fit(X, y)
    return mlflow.xgboost.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
        model_format="json",
    )


def xgboost_booster(name: str) -> Any:
    import xgboost

    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(X, y), 10)
    return mlflow.xgboost.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(xgboost.DMatrix(X))),
        model_format="json",
    )


def lightgbm_estimator(name: str) -> Any:
    import lightgbm

    X, y = load_diabetes(return_X_y=True, as_frame=True)
    model = lightgbm.LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1).fit(X, y)
    return mlflow.lightgbm.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


def lightgbm_booster(name: str) -> Any:
    import lightgbm

    X, y = load_wine(return_X_y=True, as_frame=True)
    data = lightgbm.Dataset(X, y)
    parameters = {"objective": "multiclass", "num_class": 3, "verbose": -1, "num_threads": 1}
    model = lightgbm.train(parameters, data, 10)
    return mlflow.lightgbm.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, model.predict(X)),
    )


class Scaled(mlflow.pyfunc.PythonModel):
    """A custom model with a parameter, an optional column, and a DataFrame as its answer."""

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        factor = (params or {}).get("factor", 1.0)
        bonus = model_input["bonus"].fillna(0) if "bonus" in model_input else 0
        total = (model_input["a"] + model_input["b"] + bonus) * factor
        return pd.DataFrame({"total": total, "sign": np.where(total >= 0, "plus", "minus")})


def custom_pyfunc(name: str) -> Any:
    signature = ModelSignature(
        inputs=Schema(
            [ColSpec("double", "a"), ColSpec("long", "b"), ColSpec("double", "bonus", required=False)]
        ),
        params=ParamSchema([ParamSpec("factor", "double", 1.0)]),
    )
    return mlflow.pyfunc.log_model(
        python_model=Scaled(), name=name, registered_model_name=name, **REQUIREMENTS, signature=signature
    )


def no_signature(name: str) -> Any:
    X, y = load_wine(return_X_y=True)
    return mlflow.sklearn.log_model(
        LinearRegression().fit(X, y), name=name, registered_model_name=name, **REQUIREMENTS
    )


MODELS: dict[str, Callable[[str], Any]] = {
    "cancer": cancer,
    "wine": wine,
    "iris": iris,
    "digits": digits,
    "diabetes": diabetes,
    "multi-regression": multi_regression,
    "multi-classification": multi_classification,
    "no-probabilities": no_probabilities,
    "clusters": clusters,
    "strict-categories": strict_categories,
    "strict-without-example": strict_without_example,
    "xgboost-estimator": xgboost_estimator,
    "xgboost-booster": xgboost_booster,
    "lightgbm-estimator": lightgbm_estimator,
    "lightgbm-booster": lightgbm_booster,
    "custom pyfunc": custom_pyfunc,
    "no-signature": no_signature,
}

FRAMES: dict[str, Callable[[], pd.DataFrame]] = {
    "cancer": lambda: load_breast_cancer(as_frame=True).data,
    "wine": lambda: load_wine(as_frame=True).data,
    "iris": lambda: load_iris(as_frame=True).data,
    "diabetes": lambda: load_diabetes(as_frame=True).data,
}
