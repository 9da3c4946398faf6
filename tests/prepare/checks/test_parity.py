"""The parity gate on answers made by hand."""

from typing import Any

import numpy as np
import pytest

from serving.model.schema import Inputs
from serving.prepare.checks.generated import Group
from serving.prepare.checks.parity import Comparison
from serving.runtime import Output
from serving.runtime.compiled.data import NotCompiled

ROWS = Group("made-up values", Inputs((np.arange(4.0),), 4))
PROBABILITIES = np.array([[0.5, 0.5]] * 4)


def compare(original: Output, compiled: Output) -> None:
    Comparison().group(ROWS, lambda _: original, lambda _: compiled)


def labelled(*labels: Any) -> Output:
    return Output(labels=np.array(labels), probabilities=PROBABILITIES)


def test_the_same_answers_pass() -> None:
    compare(labelled("a", "b", "a", "b"), labelled("a", "b", "a", "b"))


@pytest.mark.parametrize(
    ("labels", "others"),
    [
        (("a", "b", "a", "b"), ("a", "b", "a", "a")),
        ((1, 0, 1, 0), (True, False, True, False)),  # equal, and not the same in JSON
    ],
)
def test_other_labels_beside_the_same_probabilities_are_stopped(
    labels: tuple[Any, ...], others: tuple[Any, ...]
) -> None:
    with pytest.raises(NotCompiled, match="rows with made-up values get different labels"):
        compare(labelled(*labels), labelled(*others))


def test_an_answer_of_another_shape_is_stopped() -> None:
    with pytest.raises(NotCompiled, match="of a different shape"):
        compare(Output(values=np.zeros(4)), Output(values=np.zeros((4, 1))))
