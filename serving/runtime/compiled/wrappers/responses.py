"""A part's response to its meta-estimator: labels, values, probabilities or decision function."""

from typing import Any

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.data import Columns, Data, Matrix, NotCompiled, as_validated, is_text
from serving.runtime.compiled.nodes import Predictor, compile_predictor

PREDICT, PROBABILITIES, DECISION = "predict", "predict_proba", "decision_function"


def response(part: Predictor, method: str, data: Data) -> npt.NDArray[Any]:
    """Returns the result of the original part's method of that name.

    Raises:
        NotCompiled: the compiled part lacks the method.
    """
    if part.native_reason:
        return part.ask(method, data)
    if method == DECISION:
        return part.decision(data)
    output = part.output(data)
    if method == PROBABILITIES:
        out: npt.NDArray[Any] | None = output.probabilities
    else:
        out = output.values if output.labels is None else output.labels
    if out is None:
        raise NotCompiled(f"{type(part).__name__} has no compiled {method}")
    return out


def compile_part(fitted: Any, method: str, sample: Data) -> Predictor:
    """Compiles a wrapped estimator for calls of a method.

    Raises:
        NotCompiled: it has no compiled form, or that lacks the method.
    """
    part = compile_predictor(fitted, sample)
    response(part, method, sample)
    return part


def first_method(fitted: Any, *methods: str) -> str:
    """Returns the first of the methods that the estimator has.

    Raises:
        NotCompiled: it has none.
    """
    for method in methods:
        if hasattr(fitted, method):
            return method
    raise NotCompiled(f"{type(fitted).__name__} has none of {', '.join(methods)}")


def require_numbers(sample: Data) -> Matrix:
    """Returns the sample as the matrix that a wrapper passes on, without column names.

    Raises:
        NotCompiled: a column holds text.
    """
    if isinstance(sample, Columns) and any(map(is_text, sample.arrays)):
        raise NotCompiled("a column of text reaches an estimator that makes a matrix of its input")
    return as_validated(sample)


def require_classes(classes: Any, *expected: Any) -> npt.NDArray[Any]:
    """Returns the two or more labels of a classifier with one label per row.

    Raises:
        NotCompiled: it is another kind of classifier, or a part has other labels.
    """
    if not isinstance(classes, np.ndarray) or classes.ndim != 1:
        raise NotCompiled("it has several labels per row")
    if len(classes) < 2:
        raise NotCompiled("it has only one class")
    if not all(np.array_equal(classes, other) for other in expected):
        raise NotCompiled("a part lacks some of its classes")
    return classes
