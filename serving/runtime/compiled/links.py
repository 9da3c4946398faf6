"""Link functions: what scikit-learn takes from scipy.special and its own loss module, in NumPy.

Each takes float64 or float32, and most return it. Rows are the first axis, classes the second.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime import Output

Floats = npt.NDArray[np.floating[Any]]


def expit(x: Floats) -> Floats:
    """Returns `1 / (1 + exp(-x))`, bit for bit what `scipy.special.expit` returns.

    SciPy calls the C library's exp, NumPy only for complex numbers; NumPy's other exp differs in the last bit.
    Source: scipy/xsf, include/xsf/log_exp.h; numpy, npy_math_complex.c.src.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        exp: Floats = np.exp(0j - x).real
        out: Floats = 1 / (1 + exp)
        return out


def logit(p: Floats) -> Floats:
    """Returns `log(p / (1 - p))`; -inf at 0, inf at 1.

    Source: scipy/xsf, include/xsf/log_exp.h: near one half, log1p keeps the digits that the quotient loses.
    """
    s = 2 * (p - 0.5)
    with np.errstate(divide="ignore"):
        out: Floats = np.where((p < 0.3) | (p > 0.65), np.log(p / (1 - p)), np.log1p(s) - np.log1p(-s))
        return out


def softmax(x: Floats) -> Floats:
    """Returns `exp(x) / sum(exp(x))` of each row.

    Source: sklearn.utils.extmath.softmax, which is also the inverse link of the multinomial loss.
    """
    exp = np.exp(x - x.max(axis=1, keepdims=True))
    out: Floats = exp / exp.sum(axis=1, keepdims=True)
    return out


def two_columns(positive: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Returns the probabilities of both classes from that of the second."""
    out = np.empty((len(positive), 2), dtype=positive.dtype)
    out[:, 1] = positive
    np.subtract(1, positive, out=out[:, 0])
    return out


def probability_output(predicted: npt.NDArray[Any]) -> Output:
    """Returns labels and probabilities from a booster's probabilities of class 1, or of each class per column."""
    if predicted.ndim == 2:
        return Output(labels=predicted.argmax(axis=1), probabilities=predicted)
    return Output(labels=(predicted > 0.5).astype(np.int64), probabilities=two_columns(predicted))


def log_sum_exp(x: Floats) -> Floats:
    """Returns `log(sum(exp(x)))` of each row, shape `(n_rows, 1)`.

    Source: sklearn.utils._array_api._logsumexp: it counts the largest terms instead of adding them, so that log1p
    gets the small ones.
    """
    peak = x.max(axis=1, keepdims=True)
    is_peak = x == peak
    n_peaks = is_peak.sum(axis=1, keepdims=True, dtype=x.dtype)
    shift = np.where(np.isfinite(peak), peak, 0)
    rest = np.exp(np.where(is_peak, -np.inf, x) - shift).sum(axis=1, keepdims=True)
    out: Floats = np.log1p(rest / n_peaks) + np.log(n_peaks) + peak
    return out
