"""IterativeImputer: estimators predict missing numbers from the other columns, in several rounds."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_float, as_validated, check_finite
from serving.runtime.compiled.nodes import (
    Predictor,
    Transformer,
    compile_predictor,
    compile_transformer,
    compiles_transformer,
)

Array = npt.NDArray[Any]


@dataclass
class IterativeImputer(Transformer):
    """Replaces missing numbers by predictions."""

    first: Transformer
    """Initial values of missing numbers."""
    missing: float | None
    """The number that means missing; None is NaN."""
    kept: list[int]
    """The columns kept: all that were not empty in the fit."""
    targets: list[int]
    """The column predicted by each step of a round, among those kept."""
    sources: list[Array]
    """The predictors of each column."""
    estimators: list[Predictor]
    lows: Array
    """Limits of the predictions by column."""
    highs: Array
    indicator: Transformer | None
    """Appended indicator."""

    # Rounds are skipped only if all rows are empty.
    is_rowwise = False

    def transform(self, data: Data) -> Data:
        """Returns floats.

        Source: sklearn.impute.IterativeImputer.transform.

        Raises:
            ValueError: an infinite number, or NaN if another number means missing.
        """
        matrix = np.asarray(as_float(as_validated(data)), order="F")
        check_finite(matrix, allow_nan=self.missing is None)
        every_mask = np.isnan(matrix) if self.missing is None else matrix == self.missing
        mask = every_mask[:, self.kept]
        filled = np.array(self.first.transform(matrix))
        if self.estimators and not mask.all():
            for target, sources, estimator in zip(self.targets, self.sources, self.estimators, strict=True):
                rows = mask[:, target]
                if rows.any():
                    values = estimator.output(filled[:, sources][rows]).values
                    filled[rows, target] = np.clip(values, self.lows[target], self.highs[target])  # type: ignore[arg-type]
        if self.indicator is None:
            return filled
        return np.hstack((filled, np.asarray(self.indicator.transform(matrix))))


@compiles_transformer("sklearn.IterativeImputer")
def compile_iterative_imputer(fitted: Any, sample: Data) -> Transformer:
    """Compiles an IterativeImputer.

    Raises:
        NotCompiled: it is random, keeps empty columns, or has a part without a compiled form.
    """
    if fitted.sample_posterior:
        raise NotCompiled("imputations sampled from a distribution")
    is_empty = fitted._is_empty_feature  # noqa: SLF001  # no public attribute has it
    if fitted.keep_empty_features and is_empty.any():
        raise NotCompiled("it keeps empty columns")
    if isinstance(sample, Columns) and any(array.dtype.kind not in "fiu" for array in sample.arrays):
        raise NotCompiled("an imputer of numbers gets other columns")
    value = fitted.missing_values
    matrix = as_float(as_validated(sample))
    first = compile_transformer(fitted.initial_imputer_, matrix)
    filled = np.asarray(first.transform(matrix))
    steps = fitted.imputation_sequence_ if fitted.n_iter_ else []
    return IterativeImputer(
        first,
        None if isinstance(value, float) and np.isnan(value) else float(value),
        np.flatnonzero(~is_empty).tolist(),
        [int(step.feat_idx) for step in steps],
        [np.asarray(step.neighbor_feat_idx, dtype=np.int64) for step in steps],
        [compile_predictor(step.estimator, filled[:, step.neighbor_feat_idx]) for step in steps],
        # Without rounds there are no limits.
        np.asarray(getattr(fitted, "_min_value", []), dtype=np.float64),
        np.asarray(getattr(fitted, "_max_value", []), dtype=np.float64),
        compile_transformer(fitted.indicator_, matrix) if fitted.add_indicator else None,
    )
