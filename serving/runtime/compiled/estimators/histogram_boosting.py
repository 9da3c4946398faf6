"""HistGradientBoosting and its handling of categories."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, NotCompiled, as_matrix, as_validated, select
from serving.runtime.compiled.estimators.forests import check_tree_input
from serving.runtime.compiled.estimators.leaves import LeafSum, Tree, compile_leaves
from serving.runtime.compiled.links import expit, softmax, two_columns
from serving.runtime.compiled.nodes import (
    Node,
    Predictor,
    Transformer,
    compile_transformer,
    compiles_predictor,
)

MISSING = 256
"""Index of missing and unknown categories in a table; codes are below it."""


@dataclass
class HistogramTrees(Node):
    """Raw predictions from numerical and categorical columns."""

    trees: LeafSum
    encoder: Transformer | None
    """Encodes the categorical columns; a missing or unknown category becomes NaN."""
    categorical: list[int]
    """Positions of the categorical columns."""
    numerical: list[int]
    tables: npt.NDArray[np.uint8]
    """Shape `(n_splits, 257)`: a category goes left (0) or right (1). One row per set of categories that trees
    split by; it becomes a column split at one half."""
    features: npt.NDArray[np.intp]
    """Shape `(n_splits,)`: the categorical column of each split."""

    def raw(self, data: Data) -> npt.NDArray[np.floating[Any]]:
        """Returns shape `(n_rows,)`, or `(n_rows, n_classes)` for more than two classes."""
        if self.encoder is None:
            matrix = as_validated(data).astype(np.float64, order="C", copy=False)
            return self.trees.sum(matrix).T
        codes = as_matrix(self.encoder.transform(select(data, self.categorical)))
        places = np.where(np.isnan(codes), MISSING, codes).astype(np.intp).take(self.features, axis=1)
        n_numerical = len(self.numerical)
        matrix = np.empty((len(codes), n_numerical + len(self.features)))
        if n_numerical:
            matrix[:, :n_numerical] = as_validated(select(data, self.numerical))
        matrix[:, n_numerical:] = self.tables[np.arange(len(self.features)), places]
        return self.trees.sum(matrix).T


@dataclass
class HistogramClassifier(Predictor):
    """HistGradientBoostingClassifier."""

    trees: HistogramTrees
    classes: npt.NDArray[Any]

    def output(self, data: Data) -> Output:
        """Returns labels and probabilities."""
        raw = self.trees.raw(data)
        if raw.ndim == 1:
            return Output(
                labels=self.classes[(raw > 0).astype(np.intp)], probabilities=two_columns(expit(raw))
            )
        return Output(labels=self.classes.take(raw.argmax(axis=1)), probabilities=softmax(raw))

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the raw predictions."""
        return self.trees.raw(data)


@dataclass
class HistogramRegressor(Predictor):
    """HistGradientBoostingRegressor."""

    trees: HistogramTrees
    is_log: bool
    """Whether the trees predict the logarithm."""

    def output(self, data: Data) -> Output:
        """Returns values."""
        raw = self.trees.raw(data)
        return Output(values=np.exp(raw) if self.is_log else raw)


@compiles_predictor("sklearn.HistGradientBoostingClassifier", "sklearn.HistGradientBoostingRegressor")
def compile_histogram_boosting(fitted: Any, sample: Data) -> Predictor:
    """Compiles histogram-based gradient boosting."""
    check_tree_input(fitted, sample)
    trees = _compile_trees(fitted, sample)
    if hasattr(fitted, "classes_"):
        return HistogramClassifier(trees, fitted.classes_)
    link = type(fitted._loss.link).__name__  # noqa: SLF001  # `loss` may be an object
    if link not in ("IdentityLink", "LogLink"):
        raise NotCompiled(f"its loss has a {link}")
    return HistogramRegressor(trees, link == "LogLink")


def _compile_trees(fitted: Any, sample: Data) -> HistogramTrees:
    encoder, categorical, numerical = None, [], list(range(fitted.n_features_in_))
    preprocessor = fitted._preprocessor  # noqa: SLF001  # the only attribute with the encoder
    if preprocessor is not None:
        indices = preprocessor._transformer_to_input_indices  # noqa: SLF001  # `transformers_` has masks
        categorical, numerical = ([int(i) for i in indices[name]] for name in ("encoder", "numerical"))
        encoder = compile_transformer(
            preprocessor.named_transformers_["encoder"], select(sample, categorical)
        )
    known, place = fitted._bin_mapper.make_known_categories_bitsets()  # noqa: SLF001  # as in `_raw_predict`
    splits = _Splits(len(categorical), len(numerical), known, place)
    predictors = [one for iteration in fitted._predictors for one in iteration]  # noqa: SLF001  # the trees
    trees = [splits.tree(predictor) for predictor in predictors]
    values = [
        one.nodes["value"][tree.leaves].astype(np.float64)
        for one, tree in zip(predictors, trees, strict=True)
    ]
    # Sums start from the constant, so it goes into the first trees' leaves.
    baseline = np.ravel(fitted._baseline_prediction)  # noqa: SLF001  # no public attribute has it
    for group, start in enumerate(baseline.tolist()):
        values[group] = start + values[group]
    finder = compile_leaves(trees, len(numerical) + len(splits.features), dtype=np.float64)
    return HistogramTrees(
        LeafSum(finder, np.concatenate(values), len(baseline)),
        encoder,
        categorical,
        numerical,
        np.array(splits.tables, dtype=np.uint8).reshape(-1, MISSING + 1),
        np.array(splits.features, dtype=np.intp),
    )


class _Splits:
    """Collects the sets of categories that trees split by, while converting the trees.

    Fitted trees number the categorical columns first; ours get the numerical ones, then one per set.
    """

    def __init__(self, n_categorical: int, n_numerical: int, known: Any, place: Any) -> None:
        self._n_categorical, self._n_numerical = n_categorical, n_numerical
        self._known, self._place = known, place
        self._columns: dict[tuple[int, bytes], int] = {}
        self.tables: list[npt.NDArray[np.bool_]] = []
        self.features: list[int] = []

    def tree(self, predictor: Any) -> Tree:
        nodes = predictor.nodes
        is_leaf = nodes["is_leaf"].astype(bool)
        feature = nodes["feature_idx"].astype(np.int64) - self._n_categorical
        threshold = nodes["num_threshold"].astype(np.float64)
        for index in np.flatnonzero(nodes["is_categorical"].astype(bool) & ~is_leaf).tolist():
            left = predictor.raw_left_cat_bitsets[nodes["bitset_idx"][index]]
            feature[index] = self._column(
                int(nodes["feature_idx"][index]), left, bool(nodes["missing_go_to_left"][index])
            )
            threshold[index] = 0.5
        return Tree(
            feature,
            threshold,
            np.where(is_leaf, -1, nodes["left"].astype(np.int64)),
            np.where(is_leaf, -1, nodes["right"].astype(np.int64)),
            nodes["missing_go_to_left"].astype(bool),
        )

    def _column(self, feature: int, left: Any, missing_left: bool) -> int:
        """Source: sklearn/ensemble/_hist_gradient_boosting/_predictor.pyx, _predict_one_from_raw_data."""
        known = _bits(self._known[self._place[feature]])
        goes_left = _bits(left) | (~known & missing_left)
        table = np.append(~goes_left, not missing_left)
        key = (feature, table.tobytes())
        if key not in self._columns:
            self._columns[key] = self._n_numerical + len(self.tables)
            self.tables.append(table)
            self.features.append(feature)
        return self._columns[key]


def _bits(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """The bits of eight words, the lowest first; shape `(256,)`."""
    return (words[:, np.newaxis] >> np.arange(32, dtype=np.uint32) & np.uint32(1)).astype(bool).ravel()
