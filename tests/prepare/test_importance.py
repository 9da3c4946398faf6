"""`serving.prepare.importance`: the inputs that a model uses come first."""

from typing import Any

import numpy as np

from serving.model.schema import Column, Form, Inputs, Kind, Schema, Type
from serving.monitoring.drift.reference import freeze
from serving.prepare.importance import MANY_INPUTS, order_by_importance
from serving.runtime import Output

RANDOM = np.random.default_rng(0)


class Linear:
    """Uses three of its inputs, the last of them most."""

    def __init__(self, weights: dict[int, float]) -> None:
        self.weights = weights
        self.n_calls = 0

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        self.n_calls += 1
        return Output(values=np.sum([w * inputs.columns[i] for i, w in self.weights.items()], axis=0))


def reference_of(n_inputs: int) -> tuple[Any, Inputs]:
    rows = Inputs(tuple(RANDOM.normal(size=300) for _ in range(n_inputs)), 300)
    columns = tuple(Column(f"x{i}", Type(Kind.DOUBLE)) for i in range(n_inputs))
    return freeze(Schema(columns, Form.RECORD), rows, Output(values=rows.columns[0]), is_sample=True), rows


def test_of_many_inputs_those_that_matter_come_first():
    reference, rows = reference_of(80)
    ordered = order_by_importance(reference, Linear({7: 1.0, 40: 2.0, 79: 4.0}), rows)
    names = [feature.name for feature in ordered.features]
    assert names[:5] == ["x79", "x40", "x7", "x0", "x1"]
    assert names[-1] == "value"
    assert sorted(names) == sorted(feature.name for feature in reference.features)
    # Each still finds its own column.
    assert {feature.name: feature.position for feature in ordered.features[:-1]} == {
        f"x{i}": i for i in range(80)
    }


def test_of_few_inputs_the_order_stays_and_nothing_is_measured():
    reference, rows = reference_of(MANY_INPUTS)
    model = Linear({7: 1.0})
    assert order_by_importance(reference, model, rows) is reference
    assert model.n_calls == 0


def test_a_model_that_refuses_shuffled_rows_keeps_the_order():
    reference, rows = reference_of(80)
    assert order_by_importance(reference, Linear({99: 1.0}), rows) is reference
