"""`serving.monitoring.quality`: metrics, calibration and slices agree with scikit-learn."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn_metrics
from sklearn.calibration import calibration_curve

from serving.monitoring.quality.answers import to_classified, to_regressed, to_text
from serving.monitoring.quality.calibration import calibrate
from serving.monitoring.quality.metrics import area_under_curve, row_scores, score, score_classes
from serving.monitoring.quality.slices import MAX_SLICES, slices
from tests.support.environment import ROOT


def answers_of(n_classes: int, n_rows: int, seed: int = 0):
    random = np.random.default_rng(seed)
    classes = [f"class {position}" for position in range(n_classes)]
    counts = random.multinomial(64, random.dirichlet(np.ones(n_classes), n_rows))  # with ties
    probabilities = counts / 64
    truths = [classes[random.choice(n_classes, p=row)] for row in probabilities]
    labels = [classes[position] for position in probabilities.argmax(axis=1)]
    return truths, labels, classes, probabilities


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("n_rows", [30, 1_000])
def test_classification_is_scikit_learns(n_classes, n_rows):
    truths, labels, classes, probabilities = answers_of(n_classes, n_rows)
    found = score(to_classified(truths, labels, classes, probabilities))
    codes = np.array([classes.index(truth) for truth in truths])
    precision, recall, f1, _ = sklearn_metrics.precision_recall_fscore_support(
        truths, labels, average="macro", zero_division=0
    )
    area = (
        sklearn_metrics.roc_auc_score(codes, probabilities[:, 1])
        if n_classes == 2
        else sklearn_metrics.roc_auc_score(codes, probabilities, multi_class="ovr", average="macro")
    )
    assert found == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(truths, labels),
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "log_loss": sklearn_metrics.log_loss(codes, probabilities, labels=range(n_classes)),
            "roc_auc": area,
        }
    )


def test_metrics_by_class_are_scikit_learns():
    truths, labels = ["a", "a", "b", "c", "c", "d"], ["a", "b", "b", "a", "c", "e"]
    expected = sklearn_metrics.classification_report(truths, labels, output_dict=True, zero_division=0)
    found = score_classes(to_classified(truths, labels))
    assert list(found) == ["a", "b", "c", "e", "d"]  # those of the model first
    for name, of in found.items():
        assert list(of.values()) == pytest.approx(list(expected[name].values()))


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])), min_size=2))
def test_area_under_the_curve_with_ties_is_scikit_learns(rows):
    positive, scores = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    if positive.all() or not positive.any():
        assert area_under_curve(positive, scores) is None
    else:
        assert area_under_curve(positive, scores) == pytest.approx(
            sklearn_metrics.roc_auc_score(positive, scores)
        )


def test_regression_is_scikit_learns():
    random = np.random.default_rng(0)
    truths = random.normal(size=200) * 1e6
    values = truths + random.normal(size=200)
    assert score(to_regressed(truths, values)) == pytest.approx(
        {
            "rmse": sklearn_metrics.root_mean_squared_error(truths, values),
            "mae": sklearn_metrics.mean_absolute_error(truths, values),
            "r2": sklearn_metrics.r2_score(truths, values),
        }
    )


def test_calibration_is_scikit_learns():
    truths, labels, classes, probabilities = answers_of(2, 5_000)
    found = calibrate(to_classified(truths, labels, classes, probabilities))
    observed, predicted = calibration_curve(
        [truth == classes[1] for truth in truths], probabilities[:, 1], n_bins=10
    )
    assert [part.observed for part in found.bins] == pytest.approx(list(observed))
    assert [part.predicted for part in found.bins] == pytest.approx(list(predicted))
    assert sum(part.n_rows for part in found.bins) == 5_000


def test_calibration_error_of_a_hand_made_model():
    # Four rows at 0.9 of which two are right, four at 0.6 of which three are: (0.4 + 0.15) / 2.
    found = calibrate(
        to_classified(list("aabbaaab"), list("aaaaaaaa"), confidences=np.array([0.9] * 4 + [0.6] * 4))
    )
    assert found.what == "probability of the predicted class"
    assert found.error == pytest.approx(0.275)


def test_metrics_that_rows_do_not_have_are_left_out():
    nothing = np.empty((0, 2))
    assert score(to_classified([], [], ["a", "b"], nothing)) == {}
    assert calibrate(to_classified([], [], ["a", "b"], nothing)) is None
    assert score(to_regressed([], [])) == {}
    assert set(score(to_classified(["a"], ["a"]))) == {"accuracy", "precision", "recall", "f1"}
    one_class = to_classified(["a", "a"], ["a", "b"], ["a", "b"], np.array([[0.9, 0.1], [0.2, 0.8]]))
    assert "roc_auc" not in score(one_class)
    assert "r2" not in score(to_regressed([1, 1], [1, 2]))


def test_rows_without_probabilities_or_with_an_unknown_truth_count_only_for_labels():
    probabilities = np.array([[0.9, 0.1], [np.nan, 0.5], [0.2, 0.8], [0.3, 0.3], [0.4, 0.6]])
    answers = to_classified(["a", "b", "z", "a", "b"], ["a", "b", "b", "a", "b"], ["a", "b"], probabilities)
    found = score(answers)
    assert found["accuracy"] == 4 / 5
    assert found["log_loss"] == pytest.approx(-np.mean(np.log([0.9, 0.6])))
    assert found["roc_auc"] == 1
    assert np.isnan(row_scores(answers, "log_loss")).tolist() == [False, True, True, True, False]
    assert set(score_classes(answers)) == {"a", "b", "z"}


def test_a_right_answer_of_probability_0_has_a_finite_loss():
    answers = to_classified(["a"], ["b"], ["a", "b"], np.array([[0.0, 1.0]]))
    expected = sklearn_metrics.log_loss([0], [[0.0, 1.0]], labels=[0, 1])
    assert score(answers)["log_loss"] == pytest.approx(expected)


def test_numbers_that_are_not_finite_are_no_rows():
    answers = to_regressed([1, math.nan, 3, 4], [1, 2, math.inf, 6])
    assert (answers.truths.tolist(), answers.values.tolist()) == ([1, 4], [1, 6])


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (np.float64(2), "2"),
        (1.5, "1.5"),
        ("1.0", "1"),
        ("1.05", "1.05"),
        (True, "true"),
        ("False", "false"),
    ]
    + [("yes", "yes"), (None, None), (math.nan, None), (np.datetime64("NaT"), None)],
)
def test_labels_of_files_with_other_types_are_equal(label, text):
    assert to_text(label) == text


def test_slices_of_values_are_disjoint_and_complete():
    values = ["west"] * 3 + ["east", None, math.nan] + [f"rare {n}" for n in range(MAX_SLICES + 5)]
    found = {name: mask.tolist() for name, mask in slices(values)}
    assert found["west"] == [True] * 3 + [False] * (len(values) - 3)
    assert sum(found["missing"]) == 2
    assert sum(found["other"]) == len(values) - 6 - (MAX_SLICES - 2)
    assert np.sum(list(found.values()), axis=0).tolist() == [1] * len(values)


def test_slices_of_many_numbers_are_quartiles():
    found = {name: int(mask.sum()) for name, mask in slices([*map(float, range(101)), math.nan])}
    assert found == {
        "0 to below 25": 25,
        "25 to below 50": 25,
        "50 to below 75": 25,
        "75 to 100": 26,
        "missing": 1,
    }
    assert {name: int(mask.sum()) for name, mask in slices([0, 1, 1])} == {"1": 2, "0": 1}


def test_workers_import_nothing_but_numpy_for_it():
    modules = sorted(path.stem for path in (ROOT / "serving/monitoring/quality").glob("[a-z]*.py"))
    assert "metrics" in modules
    code = (
        f"import sys, {', '.join(f'serving.monitoring.quality.{name}' for name in modules)}; "
        "print(sorted({'pandas', 'scipy', 'sklearn', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
