"""The types and functions that a model may contain: one list for skops files and pickles.

Creating an object of a listed class only takes its state, and calling a listed function, with any arguments, only
computes. None opens a file or a connection, or starts a process.
"""

import importlib
import inspect
import re
from collections.abc import Set as AbstractSet
from typing import Any, NamedTuple

import numpy as np

from serving.model.prepared import Manifest

_SKLEARN_PACKAGES = (
    *("_loss", "calibration", "cluster", "compose", "covariance", "cross_decomposition", "decomposition"),
    *("discriminant_analysis", "dummy", "ensemble", "feature_extraction", "feature_selection", "frozen"),
    *("gaussian_process", "impute", "isotonic", "kernel_approximation", "kernel_ridge", "linear_model"),
    *("manifold", "metrics", "mixture", "model_selection", "multiclass", "multioutput", "naive_bayes"),
    *("neighbors", "neural_network", "pipeline", "preprocessing", "random_projection", "semi_supervised"),
    *("svm", "tree", "utils._bunch", "utils._metadata_requests"),
)

CLASS_MODULES = (
    *(f"sklearn.{package}" for package in _SKLEARN_PACKAGES),
    "xgboost.sklearn",
    "lightgbm.sklearn",
    "scipy.sparse",
)
"""Modules, with their submodules, whose own classes are trusted: estimators and their fitted state."""

_UFUNC_MODULES = ("numpy._core", "scipy.special")

NOT_HELD = (
    *("sklearn.cluster._hdbscan._tree", "sklearn.cluster._hierarchical_fast"),
    *(f"sklearn.ensemble._hist_gradient_boosting.{name}" for name in ("grower", "histogram", "splitting")),
    *(
        "sklearn.metrics._pairwise_distances_reduction",
        "sklearn.metrics._plot",
        "sklearn.model_selection._plot",
    ),
    *(f"sklearn.tree.{name}" for name in ("_criterion", "_export", "_partitioner", "_splitter", "_utils")),
    "sklearn.neighbors._quad_tree",
)
"""Modules among them for fitting and plotting: fitted models contain nothing of theirs."""

CLASSES = frozenset(
    {
        *("xgboost.core.Booster", "lightgbm.basic.Booster"),
        *("scipy.interpolate._bsplines.BSpline", "scipy.interpolate._interpolate.interp1d"),
        # Names in skops files for NumPy's dtypes, and in pickles for objects that a function creates.
        *("numpy.dtype", "numpy.ma.MaskedArray", "numpy.random.bit_generator.SeedSequence"),
        *("numpy.random._mt19937.MT19937", "numpy.random._pcg64.PCG64", "numpy.random._pcg64.PCG64DXSM"),
        *("numpy.random._philox.Philox", "numpy.random._sfc64.SFC64"),
        *("functools.partial", "pandas.NA", "pandas.api.typing.NAType"),
        *("pandas.Index", "pandas.RangeIndex", "pandas.StringDtype", "pandas.arrays.ArrowStringArray"),
        *("pandas.arrays.StringArray", "builtins.range"),
    }
)
"""Further trusted classes."""

VALUES = frozenset(
    {
        *(
            f"builtins.{name}"
            for name in ("bool", "bytes", "complex", "dict", "float", "int", "list", "object")
        ),
        *("builtins.set", "builtins.str", "builtins.tuple", "collections.OrderedDict", "numpy.ndarray"),
    }
)
"""Classes that may themselves be values, like a dtype; besides NumPy's scalar types."""

FUNCTION_MODULES = ("sklearn.feature_selection", "sklearn.metrics", "sklearn.utils.extmath")
"""Modules, with their submodules, whose own functions a model may call; others read files or fetch data."""

FUNCTIONS = frozenset(
    {
        *(
            f"numpy.{name}"
            for name in (
                *(
                    "abs",
                    "all",
                    "any",
                    "argmax",
                    "argmin",
                    "argsort",
                    "around",
                    "array",
                    "asarray",
                    "atleast_1d",
                ),
                *(
                    "atleast_2d",
                    "average",
                    "clip",
                    "column_stack",
                    "concatenate",
                    "cumprod",
                    "cumsum",
                    "diff",
                ),
                *(
                    "digitize",
                    "dot",
                    "expand_dims",
                    "hstack",
                    "interp",
                    "isin",
                    "max",
                    "mean",
                    "median",
                    "min",
                ),
                *("nan_to_num", "nanmax", "nanmean", "nanmedian", "nanmin", "nanstd", "nansum", "percentile"),
                *("prod", "quantile", "ravel", "reshape", "round", "sort", "squeeze", "stack", "std", "sum"),
                *("swapaxes", "transpose", "var", "vstack", "where"),
            )
        ),
        *("scipy._lib.array_api_compat.numpy._aliases.asarray", "sklearn.utils.validation.check_array"),
        *("sklearn.cluster._kmeans._kmeans_single_lloyd", "sklearn.cluster._kmeans._kmeans_single_elkan"),
        *("pandas.to_numeric", "pandas.core.tools.numeric.to_numeric", "pandas.isna", "pandas.notna"),
        *("pandas.core.dtypes.missing.isna", "pandas.core.dtypes.missing.notna"),
        *("pandas.get_dummies", "pandas.to_datetime"),
        *(
            f"sklearn.feature_extraction.text.{name}"
            for name in ("strip_accents_ascii", "strip_accents_unicode", "strip_tags")
        ),
        *(
            f"sklearn.preprocessing._data.{name}"
            for name in (
                *("add_dummy_feature", "binarize", "maxabs_scale", "minmax_scale", "normalize"),
                *("power_transform", "quantile_transform", "robust_scale", "scale"),
            )
        ),
    }
)
"""Further trusted functions, besides NumPy's and SciPy's ufuncs."""


METHODS_OF_TEXT = frozenset({"casefold", "lower", "split", "splitlines", "strip", "title", "upper"})
"""Methods of `str` that a vectorizer may call: `tokenizer=str.split`."""


class Trust(NamedTuple):
    """What is trusted in a model."""

    own_types: AbstractSet[str] = frozenset()
    """Types and functions trusted in addition to the list: `SERVING_TRUSTED_TYPES`."""
    has_hook: bool = False
    """Whether the model was trained with this `preprocessing.py`, whose functions it may call."""

    @classmethod
    def of(cls, manifest: Manifest) -> "Trust | None":
        """Returns the trust for a prepared model; None if it runs its author's code."""
        if manifest.writers_code is not None:
            return None
        return cls(frozenset(manifest.own_types), manifest.preprocessing_sha256 is not None)

    def covers(self, name: str) -> bool:
        """Whether a class or function may be part of a model, by its dotted name."""
        return (
            name in self.own_types
            or (self.has_hook and re.fullmatch(r"preprocessing\.\w+", name) is not None)
            or is_listed(name)
        )


def is_listed(name: str) -> bool:
    """Whether a class or function is on the list, by its dotted name."""
    if name in CLASSES or name in VALUES or name in FUNCTIONS:
        return True
    module = _home(name.rpartition(".")[0])
    # Unlisted modules are not even imported.
    if module != "numpy" and not _is_below(module, (*CLASS_MODULES, *FUNCTION_MODULES, *_UFUNC_MODULES)):
        return False
    found = find(name)
    if isinstance(found, np.ufunc):
        return True
    # The defining module counts: a module of scikit-learn may import anything.
    home = _home(str(getattr(found, "__module__", "")))
    if inspect.isclass(found):
        is_held = _is_below(home, CLASS_MODULES) and not _is_below(home, NOT_HELD)
        return is_held or issubclass(found, np.generic)
    return callable(found) and _is_below(home, FUNCTION_MODULES) and not hasattr(found, "__self__")


def is_value(found: type) -> bool:
    """Whether a class may be a value in a model, like a dtype; any other class could be called."""
    return issubclass(found, np.generic) or f"{found.__module__}.{found.__qualname__}" in VALUES


def find(name: str) -> Any:
    """Returns the object of a dotted name; None if it is not installed."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(_home(module)), attribute, None)
    except (ImportError, ValueError):
        return None


def _home(module: str) -> str:
    # The name of scikit-learn's compiled loss module.
    return "sklearn._loss._loss" if module == "_loss" else module


def _is_below(home: str, modules: tuple[str, ...]) -> bool:
    return "tests" not in home.split(".") and any(
        home == module or home.startswith(f"{module}.") for module in modules
    )
