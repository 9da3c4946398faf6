"""The decision about a canary, on numbers that were worked out by hand."""

import math

import pytest

from scripts.rollout.judgement import Behaviour, Limits, Share, judge, largest_difference, quantile
from tests.support.soak import scaled

LIMITS = Limits()
HALF = Share(50)


def side(answered: float = 1000, failed: float = 0, seconds: float = 0.004, **classes: float) -> Behaviour:
    """A side whose answers all took between 0.8 and 1 times so long."""
    buckets = {seconds * 0.8: 0.0, seconds: answered, math.inf: answered}
    return Behaviour(failed, buckets, classes)


@pytest.mark.parametrize(
    ("stable", "canary", "kind", "why"),
    [
        (side(), side(100), "go on", ""),
        (side(), side(99), "wait", "the canary has answered 99 of 100 requests"),
        (side(99), side(1000), "wait", "stable has 99 of 100 requests"),
        # 1 % more may fail: 10 of 1,000.
        (side(), side(990, failed=10), "go on", ""),
        (side(), side(989, failed=11), "break off", "1.1% of 1000 requests of the canary fail, stable: 0.0% of 1000"),
        # Two of a hundred are too many, also where 98 are still to come; one is not.
        (side(), side(0, failed=2), "break off", "100.0% of 2 requests of the canary fail, stable: 0.0% of 1000"),
        (side(), side(0, failed=1), "wait", "the canary has answered 0 of 100 requests"),
        # Of both sides 10 % fail: sqrt(0.1 * 0.9 * (1/400 + 1/1000)) = 0.01775, so up to 16.3 % of the canary's 400 may.
        (side(900, failed=100), side(335, failed=65), "go on", ""),
        (side(900, failed=100), side(334, failed=66), "break off", "16.5% of 400 requests of the canary fail, stable: 10.0% of 1000"),
        # 95 % within 0.8 + 0.95 * 0.2 = 0.99 of the longest: 3.96 ms; twice as long is allowed, and 5 ms are nothing.
        (side(), side(seconds=0.0088), "go on", ""),
        (side(), side(seconds=0.0095), "break off", "95 % of the canary's answers take up to 9.4 ms, stable: 4.0 ms"),
        (side(seconds=0.1), side(seconds=0.19), "go on", ""),
        (side(seconds=0.1), side(seconds=0.21), "break off", "95 % of the canary's answers take up to 207.9 ms, stable: 99.0 ms"),
        # 30 % against 45 % is 15 points, against 46 % more.
        (side(a=350, b=150), side(a=275, b=225), "go on", ""),
        (side(a=350, b=150), side(a=270, b=230), "break off", "the canary predicts 'a' for 54.0% of 500 rows, stable: 70.0% of 500"),
        (side(a=500), side(b=500), "break off", "the canary predicts 'a' for 0.0% of 500 rows, stable: 100.0% of 500"),
        (side(a=500), side(a=499), "wait", "the canary has 499 of 500 rows with a class"),
        (side(a=499), side(a=500), "wait", "stable has 499 of 500 rows with a class"),
        (side(a=500), side(), "wait", "the canary has 0 of 500 rows with a class"),
        (side(), side(a=500), "wait", "stable has 0 of 500 rows with a class"),
    ],
)  # fmt: skip
def test_the_canary_is_compared_with_the_stable_side(stable, canary, kind, why):
    assert judge(stable, canary, LIMITS, HALF) == (kind, why)


@pytest.mark.parametrize(
    ("stable", "canary", "kind"),
    [
        (Behaviour(), side(100, seconds=5, a=1), "go on"),
        (Behaviour(), side(99), "wait"),
        (Behaviour(), side(98, failed=2), "break off"),
        (side(10, failed=10), side(98, failed=2), "break off"),  # of 20 nothing is concluded
        (side(900, failed=100), side(100, failed=5), "go on"),
        (side(), side(seconds=1), "break off"),
        (side(a=500), side(b=500), "break off"),
        (side(a=500), side(b=400), "wait"),
        (side(a=400), side(b=500), "go on"),
    ],
)
def test_alone_it_is_compared_with_what_is_known_of_the_stable_side(stable, canary, kind):
    assert judge(stable, canary, LIMITS, Share(100)).kind == kind


def test_limits_are_the_callers():
    worse = side(980, failed=20, seconds=0.1, a=250, b=250)
    assert judge(side(a=500), worse, LIMITS, HALF).kind == "break off"
    generous = Limits(error_increase=0.02, latency_ratio=30, class_difference=0.5, requests=900, rows=500)
    assert judge(side(a=500), worse, generous, HALF).kind == "go on"


@pytest.mark.soak
def test_no_more_canaries_are_broken_off_by_chance_than_promised():
    """Both sides fail 5 % of their requests; one look in 700 may be wrong, and 1 % more is allowed on top."""
    import numpy as np

    random = np.random.default_rng(0)
    n = scaled(2_000, 200_000)
    failed = random.binomial(1000, 0.05, (n, 2))
    wrong = sum(
        judge(side(1000 - a, failed=a), side(1000 - b, failed=b), LIMITS, HALF).kind == "break off"
        for a, b in failed
    )
    print(f"{wrong} of {n} canaries as good as the stable side are rejected")
    assert wrong <= n / 700


@pytest.mark.parametrize(
    ("buckets", "part", "expected"),
    [
        ({}, 0.95, 0),
        ({1.0: 0, math.inf: 0}, 0.95, 0),
        ({1.0: 10, 2.0: 20, math.inf: 20}, 0.5, 1.0),
        ({1.0: 10, 2.0: 20, math.inf: 20}, 0.75, 1.5),
        ({1.0: 0, 2.0: 20, math.inf: 20}, 0.95, 1.95),
        ({1.0: 10, 2.0: 10, math.inf: 20}, 0.95, 2.0),  # beyond the last bound
    ],
)
def test_a_quantile_is_read_off_a_histogram(buckets, part, expected):
    assert quantile(buckets, part) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("stable", "canary", "kind", "why"),
    [
        (side()._replace(restarts=9), side(), "go on", ""),
        (side(), side()._replace(restarts=1), "break off", "a process of the canary restarted, 1 times"),
        (side(), Behaviour(math.nan), "break off", "its metrics are not finite numbers"),
        (
            Behaviour(1000),
            Behaviour(1000),
            "wait",
            "the canary has answered 0 of 100 requests",
        ),  # both fail always
    ],
)
def test_what_tells_that_something_is_wrong_at_all(stable, canary, kind, why):
    assert judge(stable, canary, LIMITS, HALF) == (kind, why)


@pytest.mark.parametrize(
    ("percent", "has_lasted", "stable", "canary", "kind"),
    [
        (50, True, side(1000), side(0), "break off"),  # 1,000 should be there
        (50, False, side(1000), side(0), "wait"),
        (50, True, side(1000), side(99), "break off"),
        (50, True, side(990), side(99), "wait"),  # a tenth of 990
        (10, True, side(899), side(0), "wait"),  # of 99.9 nothing is concluded
        (10, True, side(900), side(0), "break off"),
        (100, True, side(900), side(0), "wait"),
    ],
)
def test_a_canary_that_answers_next_to_nothing_of_its_part_is_noticed(
    percent, has_lasted, stable, canary, kind
):
    assert judge(stable, canary, LIMITS, Share(percent, has_lasted=has_lasted)).kind == kind


def test_the_class_that_differs_most_is_found():
    assert largest_difference({"a": 60, "b": 40}, {"a": 5, "c": 5}) == ("c", 0.5)
