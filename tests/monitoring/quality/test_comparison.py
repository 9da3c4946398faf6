"""`serving.monitoring.quality.comparison`: verdicts may be looked at as often as one likes."""

import math

import numpy as np
import pytest
from scipy import special, stats

from serving.monitoring.quality.comparison import (
    MIN_LABELS,
    N_SHARPEST,
    Moments,
    compare_groups,
    compare_pairs,
    margin,
)

LOOKS = np.arange(50, 10_001, 50)
"""Rows of each version at a look: after every 100 answers."""

N_RUNS = 500


def running_moments(values, looks):
    """The moments of the first rows, as far as each look."""
    sums, squares = np.cumsum(values)[looks - 1], np.cumsum(values**2)[looks - 1]
    return [
        Moments(int(n), float(total / n), float(square / n - (total / n) ** 2))
        for n, total, square in zip(looks, sums, squares, strict=True)
    ]


def first_verdict(champion, challenger, share=1.0):
    """Returns the first verdict on errors; the challenger has this share of the champion's rows."""
    looks = [
        running_moments(champion, LOOKS),
        running_moments(challenger, np.ceil(LOOKS * share).astype(int)),
    ]
    for groups in zip(*looks, strict=True):
        verdict = compare_groups(*groups, lower_is_better=True)
        if verdict.outcome != "not yet":
            return verdict
    return None


def draw_errors(random, *rates):
    """Which rows each version errs in."""
    return [(random.random(LOOKS[-1]) < rate).astype(float) for rate in rates]


def z_test_alarms(champion, challenger):
    """Whether a test of one look at 5 %, repeated at each look, says that equal versions differ."""
    errors = [np.cumsum(rows)[LOOKS - 1] / LOOKS for rows in (champion, challenger)]
    deviation = np.sqrt(sum(rate * (1 - rate) for rate in errors) / LOOKS)
    with np.errstate(all="ignore"):
        return bool((np.abs(errors[0] - errors[1]) / deviation > stats.norm.ppf(0.975))[1:].any())


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("n", [100, 1_000, 50_000])
def test_margin_is_the_papers(alpha, n):
    rho = math.sqrt((-special.lambertw(-(alpha**2) / math.e, -1).real - 1) / N_SHARPEST)
    expected = math.sqrt(2 * (n * rho**2 + 1) / (n**2 * rho**2) * math.log(math.sqrt(n * rho**2 + 1) / alpha))
    assert margin(n, alpha) == pytest.approx(expected)


def test_a_look_every_100_answers_raises_no_more_false_alarms_than_promised():
    """Both versions err in 2 % of the rows. A z-test finds a difference in more than a third of the runs."""
    random = np.random.default_rng(0)
    runs = [draw_errors(random, 0.02, 0.02) for _ in range(N_RUNS)]
    ours = np.mean([first_verdict(*run) is not None for run in runs])
    of_one_look = np.mean([z_test_alarms(*run) for run in runs])
    print(f"false alarms: {ours:.1%}; z-test at each look: {of_one_look:.1%}")
    assert ours <= 0.05
    assert of_one_look > 0.3


def test_a_challenger_with_a_tenth_of_the_traffic_raises_no_more_false_alarms():
    random = np.random.default_rng(1)
    runs = [first_verdict(*draw_errors(random, 0.02, 0.02), share=0.1) for _ in range(N_RUNS)]
    alarms = np.mean([run is not None for run in runs])
    print(f"false alarms with a tenth: {alarms:.1%}")
    assert alarms <= 0.05


def test_pairs_raise_no_more_false_alarms_than_promised():
    """The versions differ in 3 % of the rows, and each is right in half of these."""
    random = np.random.default_rng(2)
    alarms = 0
    for _ in range(N_RUNS):
        differences = random.choice([-1.0, 0.0, 1.0], size=LOOKS[-1], p=[0.015, 0.97, 0.015])
        alarms += any(
            compare_pairs(moments, lower_is_better=True).outcome != "not yet"
            for moments in running_moments(differences, LOOKS)
        )
    print(f"false alarms of pairs: {alarms / N_RUNS:.1%}")
    assert alarms / N_RUNS <= 0.05


@pytest.mark.parametrize(("rate", "outcome"), [(0.01, "better"), (0.04, "worse")])
def test_real_differences_are_found_and_foreseen(rate, outcome):
    random = np.random.default_rng(3)
    needed = []
    for _ in range(50):
        verdict = first_verdict(*draw_errors(random, 0.02, rate))
        assert verdict.outcome == outcome
        assert verdict.low <= rate - 0.02 <= verdict.high
        assert verdict.n_more == 0
        needed.append(verdict.n_labels)
    # With the true rates, seen at the first look.
    at_first = [Moments(500, error, error * (1 - error)) for error in (0.02, rate)]
    foreseen = compare_groups(*at_first, lower_is_better=True)
    assert foreseen.outcome == "not yet"
    assert 0.5 < np.median(needed) / (1_000 + foreseen.n_more) < 1.5
    print(f"2 % against {rate:.0%}: {np.median(needed) / 2:.0f} labels of each version")


def test_more_is_better_unless_the_metric_is_an_error():
    differences = Moments(1_000, 0.5, 0.25)
    assert compare_pairs(differences, lower_is_better=False).outcome == "better"
    assert compare_pairs(differences, lower_is_better=True).outcome == "worse"


def test_too_few_labels_are_no_verdict_but_say_how_many_are_missing():
    verdict = compare_pairs(Moments(10, 1.0, 0.0), lower_is_better=False)
    assert (verdict.outcome, verdict.n_more) == ("not yet", MIN_LABELS - 10)
    # A tenth of the traffic: 90 more for the challenger are 990 in all.
    groups = compare_groups(Moments(100, 0.0, 0.0), Moments(10, 1.0, 0.0), lower_is_better=False)
    assert (groups.outcome, groups.n_more) == ("not yet", 990)


def test_no_labels_and_no_difference_are_no_verdict():
    none = Moments.of(np.array([]))
    assert compare_pairs(none, lower_is_better=True).outcome == "not yet"
    assert compare_groups(none, Moments(500, 0.1, 0.09), lower_is_better=True).n_more is None
    equal = compare_pairs(Moments(5_000, 0.0, 0.02), lower_is_better=True)
    assert (equal.outcome, equal.n_more) == ("not yet", None)
    assert equal.low < 0 < equal.high


def test_higher_confidence_is_a_wider_interval():
    differences = Moments(1_000, 0.01, 0.04)
    wide, narrow = (
        compare_pairs(differences, lower_is_better=True, confidence=confidence) for confidence in (0.99, 0.9)
    )
    assert wide.low < narrow.low
    assert narrow.high < wide.high
