"""What counts of requests say of a version, beside those of the version before."""

import pytest

from scripts.lifecycle.counters import read_counts
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits, find_worsening

LIMITS = Limits(error_increase=0.01, latency_ratio=2)
GOOD = Counts(answered=1000, failed=10, seconds=10)


@pytest.mark.parametrize(
    ("after", "part"),
    [
        (Counts(100, 1, 1), None),
        (Counts(100, 3, 1), "2.9% of 103 requests fail, before 1.0% of 1010"),
        (Counts(0, 100, 0), "100.0% of 100"),
        (Counts(100, 0, 2.1), "takes 21.0 ms, before 10.0 ms"),
        (Counts(100, 0, 1.9), None),
        (Counts(MIN_REQUESTS - 1, 0, 100), None),  # of so few nothing is concluded
        (Counts(), None),
    ],
)
def test_worse_is_more_failures_or_longer_answers(after: Counts, part: str | None):
    found = find_worsening(GOOD, after, LIMITS)
    assert (found is None) if part is None else (part in str(found))


def test_a_few_milliseconds_are_no_worsening():
    fast = Counts(1000, 0, 0.2)
    assert find_worsening(fast, Counts(1000, 0, 4), LIMITS) is None
    assert find_worsening(fast, Counts(1000, 0, 6), LIMITS)


def test_counters_that_began_anew_count_from_zero():
    assert Counts(5, 1, 2).since(Counts(3, 1, 1)) == Counts(2, 0, 1)
    assert Counts(5, 1, 2).since(Counts(900, 30, 50)) == Counts(5, 1, 2)


def test_counts_are_those_of_every_role_but_the_shadow():
    text = """# TYPE model_prediction_latency_seconds histogram
model_prediction_latency_seconds_count{model_name="m",model_version="2",role="champion"} 3
model_prediction_latency_seconds_sum{model_name="m",model_version="2",role="champion"} 0.5
model_prediction_latency_seconds_count{model_name="m",model_version="2",role="shadow"} 100
model_prediction_latency_seconds_count{model_name="m",model_version="1",role="champion"} 70
# TYPE model_prediction_errors_total counter
model_prediction_errors_total{model_name="m",model_version="2",role="challenger",error_type="invalid_input"} 4
"""
    assert read_counts(text, "2", "") == Counts(answered=3, failed=4, seconds=0.5)


@pytest.mark.parametrize("before", [Counts(), Counts(MIN_REQUESTS - 1, 0, 1)])
def test_errors_count_where_nothing_is_known_of_the_version_before(before: Counts):
    assert "100.0% of 500 requests fail" in str(find_worsening(before, Counts(0, 500, 0), LIMITS))
    assert find_worsening(before, Counts(500, 5, 500), LIMITS) is None
