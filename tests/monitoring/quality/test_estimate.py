"""`serving.monitoring.quality.estimate`: accuracy without truth, by simulation and by hand."""

from dataclasses import replace

import numpy as np
import pytest

from serving.monitoring.quality.answers import Classified, to_classified
from serving.monitoring.quality.estimate import Estimate, Held, check_estimate, estimate_accuracy

N_RUNS = 300


def draw(random: np.random.Generator, n_rows: int, *, doubt: float = 1.0) -> Classified:
    """Rows of an overconfident model of two classes, unequally wrong; with more doubt, more rows are near 0.5."""
    shown = random.beta(3 / doubt, 1 / doubt**0.5, n_rows) / 2 + 0.5
    labels = random.integers(0, 2, n_rows)
    right = random.random(n_rows) < shown - np.where(labels, 0.2, 0.05)
    return Classified(("a", "b"), 2, np.where(right, labels, 1 - labels), labels, None, shown)


def run(random: np.random.Generator, n_known: int, n_rows: int, doubt: float) -> Held:
    known, later = draw(random, n_known), draw(random, n_rows, doubt=doubt)
    found = estimate_accuracy(known, later.labels, later.confidences)
    return check_estimate(found, later)


@pytest.mark.parametrize(("n_known", "n_rows"), [(400, 2_000), (5_000, 500)])
@pytest.mark.parametrize("doubt", [1.0, 1.5])
def test_estimates_are_off_by_two_standard_errors_once_in_twenty(n_known, n_rows, doubt):
    random = np.random.default_rng(0)
    runs = [run(random, n_known, n_rows, doubt) for _ in range(N_RUNS)]
    held = np.mean([of.has_held for of in runs])
    print(f"{held:.1%} held; mean difference {np.mean([of.difference for of in runs]):.4f}")
    assert 0.9 <= held <= 0.99


def test_rows_of_more_doubt_have_a_lower_estimate():
    random = np.random.default_rng(1)
    known, same, doubtful = draw(random, 5_000), draw(random, 5_000), draw(random, 5_000, doubt=2)
    first, second = (estimate_accuracy(known, of.labels, of.confidences).accuracy for of in (same, doubtful))
    assert second < first - 0.02
    assert second == pytest.approx(doubtful.are_right.mean(), abs=0.02)


def test_estimate_by_hand():
    """Of 60 labels at 0.9, 45 are right; of 60 at 0.6, 30. Of the rows, one in three is at 0.9."""
    known = to_classified(
        ["a"] * 45 + ["b"] * 15 + ["a"] * 30 + ["b"] * 30,
        ["a"] * 120,
        ["a", "b"],
        confidences=np.array([0.9] * 60 + [0.6] * 60),
    )
    found = estimate_accuracy(known, np.zeros(300, dtype=int), np.array([0.9] * 100 + [0.6] * 200))
    assert found.accuracy == pytest.approx(0.75 / 3 + 0.5 * 2 / 3)
    assert (found.n_rows, found.n_labels) == (300, 120)


def test_changed_relations_break_an_estimate():
    estimate = Estimate(0.9, 0.01, 1_000, 1_000)
    now = to_classified(["a"] * 80 + ["b"] * 20, ["a"] * 100)
    held = check_estimate(estimate, now)
    assert (held.accuracy, held.n_labels, held.has_held) == (0.8, 100, False)
    # √(0.01² + 0.9 · 0.1 · (1/100 - 1/1000))
    assert held.standard_error == pytest.approx(0.030166, abs=1e-6)


def test_too_few_rows_are_no_estimate():
    random = np.random.default_rng(0)
    rows = draw(random, 100)
    assert estimate_accuracy(rows.where(np.arange(100) < 20), rows.labels, rows.confidences) is None
    assert estimate_accuracy(rows, rows.labels, np.full(100, np.nan)) is None
    assert estimate_accuracy(replace(rows, confidences=None), rows.labels, rows.confidences) is None
    assert check_estimate(Estimate(0.9, 0.01, 10, 100), rows.where(np.zeros(100, dtype=bool))) is None
