"""Unsupervised estimators: IsolationForest, KMeans and MiniBatchKMeans."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output
from serving.runtime.compiled.data import Data, Matrix, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.estimators.forests import check_tree_input, to_tree
from serving.runtime.compiled.estimators.leaves import LeafSum, compile_leaves
from serving.runtime.compiled.nodes import Predictor, compiles_predictor


@dataclass
class IsolationForest(Predictor):
    """Outliers by depth: random splits isolate them earlier than other rows."""

    depths: LeafSum
    largest_depth: float
    """The sum of the expected depths of any row."""
    offset: float

    def output(self, data: Data) -> Output:
        """Returns 1 for an inlier, -1 for an outlier."""
        return Output(values=np.where(self.decision(data) < 0, -1, 1))

    def decision(self, data: Data) -> npt.NDArray[Any]:
        """Returns the scores, negative for outliers.

        Source: sklearn.ensemble.IsolationForest._compute_score_samples.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            # The forest accepts infinite numbers, too.
            depths = self.depths.sum(as_validated(data).astype(np.float32, order="C"))
        scores: npt.NDArray[Any] = -(2 ** (-depths / self.largest_depth)) - self.offset
        return scores


@dataclass
class NearestCentre(Predictor):
    """KMeans and MiniBatchKMeans: the nearest centre."""

    centres: Matrix
    """Shape `(n_clusters, n_columns)`."""
    _squares: npt.NDArray[Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._squares = np.einsum("ij,ij->i", self.centres, self.centres)

    def output(self, data: Data) -> Output:
        """Returns the clusters' numbers.

        Source: sklearn/cluster/_k_means_lloyd.pyx, _update_chunk_dense: terms equal for all centres are omitted.

        Raises:
            ValueError: a dtype other than the fit's, NaN, or an infinite number.
        """
        matrix = as_float(as_validated(data))
        check_finite(matrix)
        if matrix.dtype != self.centres.dtype:
            raise ValueError("the dtype differs from the fit's")
        distances = self._squares - 2.0 * (matrix @ self.centres.T)
        return Output(values=distances.argmin(axis=1).astype(np.int32))


@compiles_predictor("sklearn.IsolationForest")
def compile_isolation_forest(fitted: Any, sample: Data) -> Predictor:
    """Compiles an IsolationForest."""
    check_tree_input(fitted, sample)
    if fitted._max_samples < 2:  # noqa: SLF001  # not public for a fraction
        raise NotCompiled("its trees have one row each")
    trees, values = [], []
    for position, (estimator, columns) in enumerate(
        zip(fitted.estimators_, fitted.estimators_features_, strict=True)
    ):
        tree = to_tree(estimator)
        # Each tree numbers its own columns; a leaf's is negative.
        trees.append(tree._replace(feature=np.asarray(columns)[np.maximum(tree.feature, 0)]))
        path = fitted._decision_path_lengths[position]  # noqa: SLF001  # as in its `predict`
        more = fitted._average_path_length_per_tree[position]  # noqa: SLF001
        values.append(path[tree.leaves] + more[tree.leaves] - 1.0)
    finder = compile_leaves(trees, fitted.n_features_in_)
    largest = len(trees) * _average_path_length(int(fitted._max_samples))  # noqa: SLF001
    return IsolationForest(LeafSum(finder, np.concatenate(values)), largest, float(fitted.offset_))


def _average_path_length(n_rows: int) -> float:
    """Path length of a failed search in a binary search tree. Source: sklearn.ensemble._iforest._average_path_length."""
    if n_rows == 2:
        return 1.0
    return float(2.0 * (np.log(n_rows - 1.0) + np.euler_gamma) - 2.0 * (n_rows - 1.0) / n_rows)


@compiles_predictor("sklearn.KMeans", "sklearn.MiniBatchKMeans")
def compile_nearest_centre(fitted: Any, sample: Data) -> Predictor:  # noqa: ARG001  # any numbers
    """Compiles KMeans and MiniBatchKMeans."""
    return NearestCentre(np.asarray(fitted.cluster_centers_))
