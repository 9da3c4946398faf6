"""What counts as a change of an answer, and how large it is."""

import numpy as np
import pandas as pd
import pytest

from scripts.lifecycle import LifecycleError
from scripts.replaying.changes import compare

ALL = np.ones(4, dtype=np.bool_)


def answers(**columns) -> pd.DataFrame:
    return pd.DataFrame({"label": None, "value": np.nan, "output": None} | columns, index=range(4))


def test_labels_and_their_probabilities():
    before = answers(label=["a", "b", "b", "1"], **{"probability of a": [0.9, 0.2, 0.3, np.nan]})
    after = answers(
        label=["a", "a", "a", "1.0"], **{"probability of a": [0.8, 0.7, 0.6, 0.5], "probability of c": 0.0}
    )
    changes = compare(before, after, 0.0)
    assert changes.are_changed.tolist() == [False, True, True, True]
    assert changes.transitions == [{"from": "b", "to": "a", "rows": 2}, {"from": "1", "to": "1.0", "rows": 1}]
    found = changes.describe(ALL)
    assert (found["rows"], found["changed"], found["changed_ratio"]) == (4, 3, 0.75)
    assert found["mean_probability_difference"] == pytest.approx(0.3)  # 0.1, 0.5, 0.3
    assert found["largest_probability_difference"] == pytest.approx(0.5)
    assert changes.describe(np.array([True, False, False, False]))["changed"] == 0


def test_numbers_are_equal_within_a_share_of_their_size():
    before = answers(value=[100.0, 100.0, np.nan, 0.001])
    changes = compare(before, answers(value=[101.0, 104.0, np.nan, 0.002]), 0.02)
    assert changes.are_changed.tolist() == [False, True, False, True]
    found = changes.describe(ALL)
    assert found["mean_difference"] == pytest.approx((1 + 4 + 0.001) / 3)
    assert found["largest_difference"] == 4.0
    falling = compare(before, answers(value=[99.0, 97.0, np.nan, 0.001]), 0.02).describe(ALL)
    assert falling["mean_difference"] == pytest.approx(-4 / 3)
    assert falling["mean_absolute_difference"] == pytest.approx(4 / 3)
    assert "mean_probability_difference" not in falling


def test_other_answers_are_compared_inside():
    before = answers(output=["[1.0,2.0]", '{"a":1,"b":"x"}', "null", "[1.0]"])
    after = answers(output=["[1.0000001,2.0]", '{"a":1,"b":"y"}', "null", "[1.0,2.0]"])
    assert compare(before, after, 1e-6).are_changed.tolist() == [False, True, False, True]


def test_a_classifier_is_not_compared_with_a_regression():
    with pytest.raises(LifecycleError, match="answers with labels, the other with numbers"):
        compare(answers(label="a"), answers(value=1.0), 0.0)
