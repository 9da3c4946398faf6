"""More than a hundred models as they are registered: every estimator of scikit-learn, boosters, pipelines, pyfuncs."""

import inspect
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import lightgbm
import mlflow
import numpy as np
import pandas as pd
import xgboost
from mlflow.models import infer_signature
from sklearn import decomposition, ensemble, feature_extraction, feature_selection, impute, preprocessing
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor, make_column_selector, make_column_transformer
from sklearn.datasets import load_diabetes, load_digits, load_iris
from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401  # they add classes
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from sklearn.utils import all_estimators

from tests.support.models import REQUIREMENTS, TREE

Rows = pd.DataFrame | pd.Series | np.ndarray


@dataclass(frozen=True)
class Example:
    """A fitted model, the rows that it was fitted on, and how it is logged."""

    model: Any
    rows: Rows
    flavor: str = "sklearn"
    logged: dict[str, Any] = field(default_factory=dict)
    """Arguments of `log_model` beside the usual ones."""
    autolog: Callable[[], Any] | None = None
    """Fits the model, which `autolog()` logs."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the service."""

    def log(self, name: str) -> Any:
        """Registers it under a name."""
        if self.autolog is not None:
            return _log_by_autolog(self.flavor, self.autolog, name)
        usual: dict[str, Any] = {"signature": infer_signature(self.rows)}
        if self.flavor == "sklearn":
            usual["serialization_format"] = "cloudpickle"
        argument = {"sklearn": "sk_model", "xgboost": "xgb_model", "lightgbm": "lgb_model"}
        model = {argument.get(self.flavor, "python_model"): self.model}
        return getattr(mlflow, self.flavor).log_model(
            **model, name="model", registered_model_name=name, **(usual | REQUIREMENTS | self.logged)
        )


def _log_by_autolog(flavor: str, fit: Callable[[], Any], name: str) -> Any:
    library = getattr(mlflow, flavor)
    library.autolog(log_input_examples=True, registered_model_name=name, silent=True)
    try:
        fit()
    finally:
        library.autolog(disable=True)
    (version,) = mlflow.MlflowClient().search_model_versions(f"name = '{name}'")
    return type("Info", (), {"registered_model_version": version.version})


class Case(NamedTuple):
    """A row of the table."""

    library: str
    make: Callable[[], Example]


IRIS, SPECIES = load_iris(return_X_y=True, as_frame=True)
IRIS, SPECIES = IRIS.sample(frac=1, random_state=0), SPECIES.sample(frac=1, random_state=0)
DIABETES, PROGRESS = load_diabetes(return_X_y=True, as_frame=True)
DIABETES, PROGRESS = DIABETES.iloc[:120, :6], PROGRESS.iloc[:120]
TWO = np.column_stack([PROGRESS, PROGRESS**2 / 100])

_RNG = np.random.default_rng(0)
_N = 160


def _some(values: list[Any], missing: Any = None, share: float = 0.0) -> list[Any]:
    cells = _RNG.choice(len(values), _N)
    gone = _RNG.random(_N) < share
    return [missing if none else values[cell] for cell, none in zip(cells, gone, strict=True)]


NUMBERS, WORDS = ["age", "income", "children"], ["city", "plan"]
PEOPLE = pd.DataFrame(
    {
        "age": np.where(_RNG.random(_N) < 0.1, np.nan, _RNG.normal(40, 10, _N).round(1)),
        "income": _RNG.lognormal(8, 1, _N),
        "children": _RNG.integers(0, 5, _N),
        "city": pd.Series(_some(["Rome", "Oslo", "Bern", "Łódź"], np.nan, 0.1), dtype="str"),
        "plan": pd.Series(_some(["basic", "plus", "pro"]), dtype=object),
    }
)
LEFT = ((PEOPLE["income"] > 3000) ^ (PEOPLE["city"] == "Oslo") ^ (PEOPLE["age"] > 55)).astype(int).to_numpy()
SPENT = (np.nan_to_num(PEOPLE["age"], nan=40) * 3 + PEOPLE["children"] * 20).to_numpy()
ACCENTED = PEOPLE.astype({"city": "category", "plan": "category"})
CATEGORIES = PEOPLE.replace("Łódź", "Lodz").astype({"city": "category", "plan": "category"})
TEXTS = [
    f"{a} {b} {c}" for a in ("good", "bad", "so so") for b in ("red", "dry", "old") for c in ("wine", "beer")
] * 4
LIKED = [0 if "bad" in text else 1 for text in TEXTS]


# Every estimator of scikit-learn that predicts.

_ESTIMATORS = [("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=3))]
_REGRESSORS = [("a", Ridge()), ("b", DecisionTreeRegressor(max_depth=3, random_state=0))]
_C = {"C": [0.1, 1.0]}
_OF_ANOTHER = (
    *(
        "ClassifierChain",
        "MultiOutputClassifier",
        "OneVsOneClassifier",
        "OneVsRestClassifier",
        "RFE",
        "RFECV",
    ),
    *(
        "OutputCodeClassifier",
        "SelfTrainingClassifier",
        "FixedThresholdClassifier",
        "TunedThresholdClassifierCV",
    ),
)
_SEARCH = {"estimator": LogisticRegression(), "param_grid": _C}
_RANDOM_SEARCH = {"estimator": LogisticRegression(), "param_distributions": _C}
ARGUMENTS: dict[str, dict[str, Any]] = {
    **{name: {"estimator": LogisticRegression()} for name in _OF_ANOTHER},
    **{name: {"estimator": Ridge()} for name in ("MultiOutputRegressor", "RegressorChain")},
    "GridSearchCV": _SEARCH,
    "HalvingGridSearchCV": _SEARCH,
    "HalvingRandomSearchCV": _RANDOM_SEARCH,
    "RandomizedSearchCV": _RANDOM_SEARCH | {"n_iter": 2},
    "LocalOutlierFactor": {"novelty": True},
    "MLPClassifier": {"max_iter": 40},
    "MLPRegressor": {"max_iter": 40},
    "Pipeline": {"steps": [("scale", preprocessing.StandardScaler()), ("last", LogisticRegression())]},
    "RadiusNeighborsClassifier": {"radius": 2.0, "outlier_label": "most_frequent"},
    "StackingClassifier": {"estimators": _ESTIMATORS},
    "StackingRegressor": {"estimators": _REGRESSORS},
    "TheilSenRegressor": {"max_subpopulation": 200},
    "VotingClassifier": {"estimators": _ESTIMATORS, "voting": "soft"},
    "VotingRegressor": {"estimators": _REGRESSORS},
}
SEVERAL_NUMBERS = {"CCA", "PLSCanonical", "PLSRegression", "MultiOutputRegressor", "RegressorChain"}
SEVERAL = {"ClassifierChain", "MultiOutputClassifier"}
BINARY = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}


def _estimator(name: str, kind: type) -> Example:
    known = inspect.signature(kind).parameters
    usual = {"random_state": 0, "n_estimators": 10} | ({"max_iter": 10} if name.startswith("Hist") else {})
    model = kind(**({k: v for k, v in usual.items() if k in known} | ARGUMENTS.get(name, {})))
    rows, target = (
        (IRIS, SPECIES) if is_classifier(model) or name in ("RFE", "RFECV") else (DIABETES, PROGRESS)
    )
    if name == "CategoricalNB":
        rows = rows.astype(int)
    if name == "IsotonicRegression":
        rows = rows[["bmi"]]
    if name in SEVERAL:
        target = np.column_stack([SPECIES, SPECIES == 1])
    elif name in BINARY:
        target = SPECIES == 1
    elif name in SEVERAL_NUMBERS or not model.__sklearn_tags__().target_tags.single_output:
        target = TWO
    return Example(model.fit(rows, target), rows)


def _estimators() -> dict[str, Case]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [(name, kind) for name, kind in all_estimators() if hasattr(kind, "predict")]
    return {name: Case("scikit-learn", lambda n=name, k=kind: _estimator(n, k)) for name, kind in found}  # type: ignore[misc]


# Pipelines.


def _front(*, words: Any = None, numbers: Any = None, is_dense: bool = False) -> Any:
    words = words or preprocessing.OneHotEncoder(handle_unknown="ignore", sparse_output=not is_dense)
    return make_column_transformer(
        (make_pipeline(impute.SimpleImputer(), numbers or preprocessing.StandardScaler()), NUMBERS),
        (make_pipeline(impute.SimpleImputer(strategy="most_frequent"), words), WORDS),
    )


def _pipeline(*steps: Any) -> Example:
    target = LEFT if is_classifier(steps[-1]) else SPENT
    return Example(make_pipeline(*steps).fit(PEOPLE, target), PEOPLE)


def _forest() -> Any:
    return ensemble.RandomForestClassifier(10, random_state=0)


LAST: dict[str, Callable[[], Any]] = {
    "LogisticRegression": LogisticRegression,
    "LinearRegression": LinearRegression,
    "RandomForestClassifier": _forest,
    "RandomForestRegressor": lambda: ensemble.RandomForestRegressor(10, random_state=0),
    "GradientBoostingClassifier": lambda: ensemble.GradientBoostingClassifier(
        n_estimators=10, random_state=0
    ),
    "GridSearchCV": lambda: GridSearchCV(LogisticRegression(), _C),
    "VotingClassifier": lambda: ensemble.VotingClassifier([("a", LogisticRegression()), ("b", _forest())]),
    "soft VotingClassifier": lambda: ensemble.VotingClassifier(
        [("a", LogisticRegression()), ("b", _forest())], voting="soft"
    ),
    "StackingClassifier": lambda: ensemble.StackingClassifier(
        [("a", LogisticRegression()), ("b", _forest())]
    ),
    "CalibratedClassifierCV, isotonic": lambda: CalibratedClassifierCV(_forest(), method="isotonic"),
    "CalibratedClassifierCV of LinearSVC": lambda: CalibratedClassifierCV(LinearSVC()),
    "BaggingClassifier": lambda: ensemble.BaggingClassifier(LogisticRegression(), 5, random_state=0),
    "TransformedTargetRegressor": lambda: TransformedTargetRegressor(
        Ridge(), func=np.log1p, inverse_func=np.expm1
    ),
    "MLPClassifier": lambda: MLPClassifier((8,), max_iter=30, random_state=0),
    "SVC": SVC,
    "KNeighborsClassifier": KNeighborsClassifier,
    "XGBClassifier": lambda: xgboost.XGBClassifier(n_estimators=10, n_jobs=1),
    "LGBMClassifier": lambda: lightgbm.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1),
    "LGBMRegressor": lambda: lightgbm.LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1),
}
SCALERS: dict[str, Callable[[], Any]] = {
    "RobustScaler": preprocessing.RobustScaler,
    "MinMaxScaler": preprocessing.MinMaxScaler,
    "MaxAbsScaler": preprocessing.MaxAbsScaler,
    "PowerTransformer": preprocessing.PowerTransformer,
    "QuantileTransformer": lambda: preprocessing.QuantileTransformer(n_quantiles=20),
    "KBinsDiscretizer": lambda: preprocessing.KBinsDiscretizer(4, quantile_method="averaged_inverted_cdf"),
    "SplineTransformer": preprocessing.SplineTransformer,
    "PolynomialFeatures": preprocessing.PolynomialFeatures,
    "Normalizer": preprocessing.Normalizer,
    "FunctionTransformer of np.log1p": lambda: preprocessing.FunctionTransformer(np.log1p),
    "PCA": lambda: decomposition.PCA(2),
    "SelectKBest": lambda: feature_selection.SelectKBest(k=2),
    "FeatureUnion": lambda: FeatureUnion(
        [("a", preprocessing.StandardScaler()), ("b", decomposition.PCA(2))]
    ),
}
ENCODERS: dict[str, Callable[[], Any]] = {
    "OrdinalEncoder": lambda: preprocessing.OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=-1
    ),
    "TargetEncoder": lambda: preprocessing.TargetEncoder(random_state=0, cv=2),
    "OneHotEncoder with infrequent categories": lambda: preprocessing.OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=50
    ),
    "strict OneHotEncoder": lambda: preprocessing.OneHotEncoder(drop="first"),
}
IMPUTERS: dict[str, Callable[[], Any]] = {
    "median, with indicator": lambda: impute.SimpleImputer(strategy="median", add_indicator=True),
    "IterativeImputer": lambda: impute.IterativeImputer(random_state=0),
    "KNNImputer": impute.KNNImputer,
}


def _imputed(imputer: Any) -> Example:
    rows = PEOPLE[NUMBERS]
    return Example(make_pipeline(imputer, LogisticRegression(max_iter=500)).fit(rows, LEFT), rows)


def _histogram(*, is_regressor: bool) -> Example:
    kind = ensemble.HistGradientBoostingRegressor if is_regressor else ensemble.HistGradientBoostingClassifier
    return _pipeline(_front(is_dense=True), kind(max_iter=10))


def _own_categories() -> Example:
    model = ensemble.HistGradientBoostingClassifier(max_iter=10, categorical_features="from_dtype")
    return Example(model.fit(CATEGORIES, LEFT), CATEGORIES)


def _selected() -> Example:
    front = make_column_transformer(
        (preprocessing.StandardScaler(), make_column_selector(dtype_include=np.number)),
        (preprocessing.OneHotEncoder(handle_unknown="ignore"), make_column_selector(dtype_exclude=np.number)),
    )
    rows = PEOPLE.dropna()
    return Example(make_pipeline(front, LogisticRegression(max_iter=500)).fit(rows, LEFT[rows.index]), rows)


def _with_text() -> Example:
    rows = pd.DataFrame({"review": TEXTS, "stars": np.arange(len(TEXTS)) % 5.0})
    front = make_column_transformer(
        (feature_extraction.text.TfidfVectorizer(), "review"), remainder=preprocessing.StandardScaler()
    )
    return Example(make_pipeline(front, LogisticRegression()).fit(rows, LIKED), rows)


def _pandas_output() -> Example:
    front = make_column_transformer(
        (preprocessing.StandardScaler(), ["income"]), remainder="drop", verbose_feature_names_out=False
    ).set_output(transform="pandas")
    return _pipeline(front, LogisticRegression())


def _pipelines() -> dict[str, Case]:
    def case(make: Callable[[], Example]) -> Case:
        return Case("Pipelines", make)

    return {
        **{f"ColumnTransformer, {n}": case(lambda m=m: _pipeline(_front(), m())) for n, m in LAST.items()},
        **{
            f"{n} on numbers": case(
                lambda m=m: _pipeline(_front(numbers=m()), LogisticRegression(max_iter=500))
            )
            for n, m in SCALERS.items()
        },
        **{
            f"{n} on text": case(lambda m=m: _pipeline(_front(words=m()), _forest()))
            for n, m in ENCODERS.items()
        },
        **{f"imputed: {n}": case(lambda m=m: _imputed(m())) for n, m in IMPUTERS.items()},
        "ColumnTransformer, HistGradientBoostingClassifier": case(lambda: _histogram(is_regressor=False)),
        "ColumnTransformer, HistGradientBoostingRegressor": case(lambda: _histogram(is_regressor=True)),
        "HistGradientBoostingClassifier, pandas categories": case(_own_categories),
        "ColumnTransformer, columns selected by dtype": case(_selected),
        "a text column beside numbers": case(_with_text),
        "ColumnTransformer, pandas output": case(_pandas_output),
    }


# Boosters.


def _booster(library: str, objective: str, *, has_categories: bool = False) -> Example:
    rows = CATEGORIES if has_categories else PEOPLE[NUMBERS]
    target = SPENT if objective.startswith("reg") else LEFT
    if objective.startswith("multi"):
        rows, target = IRIS, SPECIES
    more = {"num_class": 3} if objective.startswith("multi") else {}
    if library == "xgboost":
        data = xgboost.DMatrix(rows, target, enable_categorical=True)
        model = xgboost.train({"objective": objective, "nthread": 1, **more}, data, 10)
        return Example(model, rows, library, {"model_format": "json"})
    settings = {"objective": objective, "num_threads": 1, "verbose": -1, **more}
    return Example(lightgbm.train(settings, lightgbm.Dataset(rows, target), 10), rows, library)


def _boosted(model: Any, *, has_categories: bool = False, is_multiclass: bool = False) -> Example:
    rows, target = (CATEGORIES if has_categories else PEOPLE[NUMBERS]), LEFT
    if is_multiclass:
        rows, target = IRIS, SPECIES
    if not is_classifier(model):
        target = SPENT
    flavor = type(model).__module__.partition(".")[0]
    if isinstance(model, (xgboost.XGBRanker, lightgbm.LGBMRanker)):
        logged = {"skops_trusted_types": ["lightgbm.sklearn.LGBMRanker"]} if flavor == "lightgbm" else {}
        return Example(model.fit(rows, LEFT, group=[_N // 2] * 2), rows, flavor, logged)
    return Example(model.fit(rows, target), rows, flavor)


def _xgb(kind: str, **more: Any) -> Any:
    return getattr(xgboost, kind)(n_estimators=10, n_jobs=1, **more)


def _lgb(kind: str, **more: Any) -> Any:
    return getattr(lightgbm, kind)(n_estimators=10, n_jobs=1, verbose=-1, **more)


def _boosters() -> dict[str, Case]:
    x: dict[str, Callable[[], Example]] = {
        "XGBClassifier": lambda: _boosted(_xgb("XGBClassifier")),
        "XGBClassifier, three classes": lambda: _boosted(_xgb("XGBClassifier"), is_multiclass=True),
        "XGBClassifier, pandas categories": lambda: _boosted(
            _xgb("XGBClassifier", enable_categorical=True), has_categories=True
        ),
        "XGBClassifier, categories with accents": lambda: Example(
            _xgb("XGBClassifier", enable_categorical=True).fit(ACCENTED, LEFT), ACCENTED, "xgboost"
        ),
        "XGBClassifier, dart": lambda: _boosted(_xgb("XGBClassifier", booster="dart")),
        "XGBClassifier, gblinear": lambda: _boosted(_xgb("XGBClassifier", booster="gblinear")),
        "XGBRegressor": lambda: _boosted(_xgb("XGBRegressor")),
        "XGBRegressor, count:poisson": lambda: _boosted(_xgb("XGBRegressor", objective="count:poisson")),
        "XGBRegressor, reg:quantileerror": lambda: _boosted(
            _xgb("XGBRegressor", objective="reg:quantileerror", quantile_alpha=0.9)
        ),
        "XGBRFClassifier": lambda: _boosted(_xgb("XGBRFClassifier")),
        "XGBRanker": lambda: _boosted(_xgb("XGBRanker")),
        "XGBoost Booster, binary:logistic": lambda: _booster("xgboost", "binary:logistic"),
        "XGBoost Booster, multi:softprob": lambda: _booster("xgboost", "multi:softprob"),
        "XGBoost Booster, multi:softmax": lambda: _booster("xgboost", "multi:softmax"),
        "XGBoost Booster, reg:squarederror": lambda: _booster("xgboost", "reg:squarederror"),
        "XGBoost Booster, pandas categories": lambda: _booster(
            "xgboost", "binary:logistic", has_categories=True
        ),
    }
    lgb: dict[str, Callable[[], Example]] = {
        "LGBMClassifier": lambda: _boosted(_lgb("LGBMClassifier")),
        "LGBMClassifier, three classes": lambda: _boosted(_lgb("LGBMClassifier"), is_multiclass=True),
        "LGBMClassifier, pandas categories": lambda: _boosted(
            _lgb("LGBMClassifier", min_child_samples=3), has_categories=True
        ),
        "LGBMClassifier, categories with accents": lambda: Example(
            _lgb("LGBMClassifier", min_child_samples=3).fit(ACCENTED, LEFT), ACCENTED, "lightgbm"
        ),
        "LGBMClassifier, random forest": lambda: _boosted(
            _lgb("LGBMClassifier", boosting_type="rf", subsample=0.5, subsample_freq=1)
        ),
        "LGBMClassifier, linear trees": lambda: _boosted(_lgb("LGBMClassifier", linear_tree=True)),
        "LGBMRegressor": lambda: _boosted(_lgb("LGBMRegressor")),
        "LGBMRegressor, poisson": lambda: _boosted(_lgb("LGBMRegressor", objective="poisson")),
        "LGBMRegressor, quantile": lambda: _boosted(_lgb("LGBMRegressor", objective="quantile", alpha=0.9)),
        "LGBMRanker": lambda: _boosted(_lgb("LGBMRanker")),
        "LightGBM Booster, binary": lambda: _booster("lightgbm", "binary"),
        "LightGBM Booster, multiclass": lambda: _booster("lightgbm", "multiclass"),
        "LightGBM Booster, regression": lambda: _booster("lightgbm", "regression"),
        "LightGBM Booster, pandas categories": lambda: _booster("lightgbm", "binary", has_categories=True),
    }
    return {n: Case("XGBoost", m) for n, m in x.items()} | {n: Case("LightGBM", m) for n, m in lgb.items()}


# Missing values.


def _missing(encoder: Any, cells: pd.Series, last: Any = None) -> Example:
    rows = pd.DataFrame({"city": cells, "x": np.arange(_N) % 7 / 7})
    target = (cells.isna() | (cells == cells.dropna().iloc[0]).fillna(value=False).astype(bool)).to_numpy()
    front = make_column_transformer((encoder, ["city"]), remainder="passthrough")
    last = LogisticRegression() if last is None else last
    return Example(make_pipeline(front, last).fit(rows, target), rows)


def _cells(dtype: str, values: list[Any], missing: Any = None) -> pd.Series:
    return pd.Series([*values, missing] * (_N // (len(values) + 1) + 1), dtype=dtype).iloc[:_N]


def _gaps() -> dict[str, Case]:
    cities = ["Rome", "Oslo", "Bern"]

    def hot() -> Any:
        return preprocessing.OneHotEncoder(handle_unknown="ignore")

    found: dict[str, Callable[[], Example]] = {
        "None in text, OneHotEncoder": lambda: _missing(hot(), _cells("object", cities)),
        "NaN in text, OneHotEncoder": lambda: _missing(hot(), _cells("str", cities)),
        "NaN in objects, OneHotEncoder": lambda: _missing(hot(), _cells("object", cities, np.nan)),
        "None in text, OrdinalEncoder": lambda: _missing(
            preprocessing.OrdinalEncoder(encoded_missing_value=-1), _cells("object", cities), _forest()
        ),
        "NaN in text, TargetEncoder": lambda: _missing(
            preprocessing.TargetEncoder(random_state=0, cv=2), _cells("str", cities)
        ),
        "None in booleans, OneHotEncoder": lambda: _missing(hot(), _cells("object", [True, False, True])),
        "None in integers, OneHotEncoder": lambda: _missing(hot(), _cells("object", [1, 2, 3])),
        "NaN in numbers, OneHotEncoder": lambda: _missing(hot(), _cells("float64", [1, 2, 3])),
        "NA in pandas' Int64, OneHotEncoder": lambda: _missing(hot(), _cells("Int64", [1, 2, 3])),
        "NA in pandas' boolean, imputed": lambda: _missing(
            impute.SimpleImputer(strategy="most_frequent"),
            _cells("boolean", [True, False, True]).astype("float64"),
        ),
        "NaN in numbers, tree": lambda: Example(
            DecisionTreeClassifier(max_depth=4, random_state=0).fit(PEOPLE[NUMBERS], LEFT), PEOPLE[NUMBERS]
        ),
        "None in text, imputed": lambda: _missing(
            impute.SimpleImputer(missing_values=None, strategy="constant", fill_value="none"),
            _cells("object", cities),
            make_pipeline(hot(), LogisticRegression()),
        ),
    }
    return {name: Case("Missing values", make) for name, make in found.items()}


# Models that are called through mlflow.pyfunc.


class Optional(mlflow.pyfunc.PythonModel):
    """Uses its optional columns if a request has them."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
        bonus = model_input["bonus"].astype("float64").fillna(0) if "bonus" in model_input else 0.0
        word = model_input["word"].fillna("none").str.len() if "word" in model_input else 0
        return np.asarray(model_input["a"] * 2.0 + bonus + word)


class Returns(mlflow.pyfunc.PythonModel):
    """Returns one of the forms that a pyfunc may return."""

    def __init__(self, form: str) -> None:
        self.form = form

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
        total = np.asarray(model_input, dtype=np.float64).reshape(len(model_input), -1).sum(axis=1)
        sign = np.where(total > 0, "plus", "minus")
        return {
            "a frame": lambda: pd.DataFrame({"total": total, "sign": sign}),
            "a frame of one column": lambda: pd.DataFrame({"total": total}),
            "a series": lambda: pd.Series(total, index=range(7, 7 + len(total))),
            "an array": lambda: np.column_stack([total, -total]),
            "a float32 array": lambda: total.astype(np.float32),
            "texts": lambda: sign,
            "a list of dicts": lambda: [{"total": float(t), "all": [float(t)] * 2} for t in total],
            "a dict of lists": lambda: {"total": total.tolist(), "sign": sign.tolist()},
            "a list of lists": lambda: [[float(t), 1.0] for t in total],
        }[self.form]()


class Dates(mlflow.pyfunc.PythonModel):
    """Counts days."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
        seconds = (model_input["when"] - pd.Timestamp("2024-01-01")).dt.total_seconds()
        return np.asarray(seconds + model_input["x"])


class Loose(mlflow.pyfunc.PythonModel):
    """Sums each list."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[float]:
        return [float(np.sum(cell)) for cell in model_input["cells"]]


OWN_CODE = {"allow_pickle": True}
FORMS = (
    *("a frame", "a frame of one column", "a series", "an array", "a float32 array", "texts"),
    *("a list of dicts", "a dict of lists", "a list of lists"),
)
WHEN = pd.DataFrame(
    {"when": pd.date_range("2024-02-28T22:00:00.250", periods=40, freq="7h"), "x": np.arange(40.0)}
)
OPTIONAL = pd.DataFrame(
    {
        "a": np.arange(20.0),
        "bonus": pd.Series([1, None, 3, 4] * 5, dtype=object),
        "word": pd.Series(["one", "three", None, ""] * 5, dtype=object),
    }
)


def _pyfuncs() -> dict[str, Case]:
    def own(model: Any, rows: Rows) -> Case:
        return Case("Pyfunc", lambda: Example(model, rows, "pyfunc", settings=OWN_CODE))

    return {
        **{f"returns {form}": own(Returns(form), DIABETES.head(40)) for form in FORMS},
        "optional columns": own(Optional(), OPTIONAL),
        "a column of datetimes": own(Dates(), WHEN),
        "a column of lists": own(Loose(), pd.DataFrame({"cells": [[1.0, 2.5], [3.0], [4.0, 5.0, 6.0]] * 5})),
        "a tensor of images, float32": own(Returns("an array"), np.ones((6, 3, 2), np.float32) * 0.1),
    }


# Arrays, ways of logging, labels of columns.


def _array(dtype: str, flavor: str = "sklearn") -> Example:
    X, y = load_digits(return_X_y=True)
    rows = (X[:200] > 7 if dtype == "bool" else X[:200]).astype(dtype)
    if flavor == "xgboost":
        return Example(_xgb("XGBClassifier").fit(rows, y[:200]), rows, flavor)
    if flavor == "lightgbm":
        return Example(_lgb("LGBMClassifier").fit(rows, y[:200]), rows, flavor)
    model = make_pipeline(preprocessing.StandardScaler(), LogisticRegression(max_iter=50))
    return Example(model.fit(rows, y[:200]), rows)


def _autologged(flavor: str, model: Any, rows: pd.DataFrame = IRIS) -> Example:
    target = LEFT if rows is PEOPLE else SPECIES
    return Example(model, rows, flavor, autolog=lambda: model.fit(rows, target))


def _skops(model: Any, rows: pd.DataFrame = IRIS) -> Example:
    logged = {
        "serialization_format": "skops",
        "skops_trusted_types": [
            *TREE,
            "numpy.dtype",
            "sklearn.compose._column_transformer._RemainderColsList",
        ],
    }
    return Example(model.fit(rows, LEFT if rows is PEOPLE else SPECIES), rows, logged=logged)


def _with_example(model: Any) -> Example:
    return Example(model.fit(IRIS, SPECIES), IRIS, logged={"input_example": IRIS.head(20)})


def _pickled() -> Example:
    model = _forest().fit(IRIS, SPECIES)
    return Example(model, IRIS, logged={"serialization_format": "pickle"})


def _labelled(labels: list[Any]) -> Example:
    rows = IRIS.set_axis(labels, axis=1)
    model = make_pipeline(preprocessing.StandardScaler(), LogisticRegression())
    # scikit-learn keeps column names only if all are text.
    return Example(model.fit(rows, SPECIES), rows)


def _wide() -> Example:
    rows = pd.DataFrame(np.random.default_rng(1).normal(size=(80, 120))).rename(columns="c{}".format)
    return Example(Ridge().fit(rows, rows["c0"] * 3), rows)


def _dtypes() -> Example:
    rows = IRIS.astype({IRIS.columns[0]: "float32", IRIS.columns[1]: "int32", IRIS.columns[2]: "int64"})
    rows["is_big"] = IRIS.iloc[:, 3] > 1
    return Example(_forest().fit(rows, SPECIES), rows)


def _words_as_labels() -> Example:
    names = np.array(["setosa", "versicolor", "Łódź"], dtype=object)[SPECIES]
    return Example(_forest().fit(IRIS, names), IRIS)


def _texts(last: Any, vectorizer: Any) -> Example:
    texts = pd.Series(TEXTS)
    return Example(make_pipeline(vectorizer, last).fit(texts, LIKED), texts)


def _others() -> dict[str, Case]:
    text = feature_extraction.text
    arrays: dict[str, Callable[[], Example]] = {
        **{
            f"array of {d}": lambda d=d: _array(d)  # type: ignore[misc]
            for d in ("float64", "float32", "int64", "int32", "uint8", "bool")
        },
        "array of float32, XGBClassifier": lambda: _array("float32", "xgboost"),
        "array of float64, LGBMClassifier": lambda: _array("float64", "lightgbm"),
    }
    logging: dict[str, Callable[[], Example]] = {
        "autolog, RandomForestClassifier": lambda: _autologged("sklearn", _forest()),
        "autolog, ColumnTransformer": lambda: _autologged(
            "sklearn", make_pipeline(_front(), LogisticRegression()), PEOPLE
        ),
        "autolog, XGBClassifier": lambda: _autologged("xgboost", _xgb("XGBClassifier")),
        "autolog, LGBMClassifier": lambda: _autologged("lightgbm", _lgb("LGBMClassifier")),
        "skops, RandomForestClassifier": lambda: _skops(_forest()),
        "skops, ColumnTransformer": lambda: _skops(make_pipeline(_front(), _forest()), PEOPLE),
        "pickle, RandomForestClassifier": _pickled,
        "input_example, LogisticRegression": lambda: _with_example(LogisticRegression(max_iter=500)),
    }
    frames: dict[str, Callable[[], Example]] = {
        "integers as column names": lambda: _labelled([0, 1, 2, 3]),
        "column names with blanks and accents": lambda: _labelled(["a b", "é", "$x.y", '"q"']),
        "120 columns": _wide,
        "float32, int32, int64 and booleans": _dtypes,
        "text labels": _words_as_labels,
        "boolean labels": lambda: Example(_forest().fit(IRIS, SPECIES == 1), IRIS),
    }
    texts: dict[str, Callable[[], Example]] = {
        "list of texts, TfidfVectorizer": lambda: _texts(LogisticRegression(), text.TfidfVectorizer()),
        "list of texts, CountVectorizer": lambda: _texts(MultinomialNB(), text.CountVectorizer()),
        "list of texts, HashingVectorizer": lambda: _texts(
            LinearSVC(), text.HashingVectorizer(n_features=64)
        ),
    }
    return {
        name: Case(library, make)
        for library, models in (
            ("Arrays", arrays),
            ("Logging", logging),
            ("Columns", frames),
            ("Texts", texts),
        )
        for name, make in models.items()
    }


MODELS: dict[str, Case] = _estimators() | _pipelines() | _boosters() | _gaps() | _pyfuncs() | _others()

REPRESENTATIVE = (
    *("HistGradientBoostingClassifier", "GaussianMixture", "MultiOutputClassifier"),
    *("ColumnTransformer, RandomForestClassifier", "a text column beside numbers"),
    *("XGBClassifier, pandas categories", "LightGBM Booster, multiclass"),
    *("None in text, OneHotEncoder", "optional columns", "a column of datetimes"),
    *("array of float32", "integers as column names", "list of texts, TfidfVectorizer"),
)
"""Tried by the ordinary tests."""
