"""What a real Prometheus says of both sides of a canary."""

import math
from pathlib import Path

import pytest

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.prometheus import Prometheus
from scripts.rollout.judgement import LATENCY_QUANTILE, Behaviour
from scripts.rollout.measurement import Measure
from scripts.rollout.target import Sides
from tests.support.environment import wait_until
from tests.support.prometheus import Pod, running_prometheus

SIDES = Sides('service="stable"', 'service="canary"')


def lines(version: str, role: str, *, fast: int, slow: int, failed: int, **classes: int) -> dict[str, float]:
    """What a service shows: requests within a millisecond, more within four, failed ones, and rows."""
    labels = f'model_name="wine",model_version="{version}",role="{role}"'
    latency = f"model_prediction_latency_seconds_bucket{{{labels}"
    shown = {
        f'{latency},le="0.001"}}': fast,
        f'{latency},le="0.004"}}': fast + slow,
        f'{latency},le="+Inf"}}': fast + slow,
        f'model_prediction_errors_total{{{labels},error_type="invalid_input"}}': failed,
        f'model_info{{model_name="wine",model_version="{version}"}}': 1,
    }
    counter = f"model_predicted_class_total{{{labels},predicted_class="
    return shown | {f'{counter}"{name}"}}': rows for name, rows in classes.items()}


@pytest.fixture
def scraped(tmp_path: Path):
    """Two stable pods and one of the canary, and the Prometheus that scrapes them."""
    pods = [Pod(), Pod(), Pod()]
    for pod in pods:
        pod.start()
    services = ("stable", "stable", "canary")
    labels = {pod.address: {"service": service} for pod, service in zip(pods, services, strict=True)}
    with running_prometheus(tmp_path / "prometheus", *labels, labels=labels, scrape_seconds=0.2) as server:
        yield pods, server
    for pod in pods:
        pod.stop()


def test_each_side_is_added_up_over_its_pods_versions_and_roles(scraped):
    (first, second, canary), server = scraped
    first.show_lines(lines("1", "champion", fast=1000, slow=1000, failed=100, a=5000))
    canary.show_lines(lines("1", "champion", fast=7, slow=0, failed=1, a=7))
    server.wait_value('sum(model_predicted_class_total{role="champion"})', 5007)
    server.wait_value("sum(up)", 3)  # of one that it knows not yet, nothing began since
    prometheus = Prometheus(server.url)
    both = Measure(prometheus, SIDES).follow(is_alone=False)
    first.show_lines(lines("1", "champion", fast=1060, slow=1030, failed=105, a=5100))  # 60, 30, 5, a 100
    first.show_lines(
        lines("2", "challenger", fast=3, slow=4, failed=2, a=900)
    )  # began since; classes of another model
    first.show_lines(lines("3", "shadow", fast=500, slow=500, failed=500, b=500))  # nobody got its answers
    second.show_lines(lines("1", "champion", fast=20, slow=10, failed=0, a=10, b=30))  # began since
    canary.show_lines(lines("1", "champion", fast=17, slow=30, failed=4, a=7))  # 10, 30, 3, none
    server.wait_value('model_predicted_class_total{predicted_class="b",role="champion"}', 30)
    server.wait_value(
        'model_predicted_class_total{predicted_class="a",service="stable",model_version="2"}', 900
    )
    server.wait_value('model_prediction_errors_total{service="canary"}', 4)
    fast, slow = 60 + 3 + 20, 30 + 4 + 10
    stable = Behaviour(5 + 2, {0.001: fast, 0.004: fast + slow, math.inf: fast + slow}, {"a": 110, "b": 30})
    assert both() == (stable, Behaviour(3, {0.001: 10, 0.004: 40, math.inf: 40}, {}))


def test_the_latency_is_what_prometheus_says(scraped):
    (first, _, _), server = scraped
    first.show_lines(lines("1", "champion", fast=300, slow=700, failed=0))
    total = 'sum by (le) (model_prediction_latency_seconds_bucket{service="stable"})'
    wait_until(lambda: server.value(f"histogram_quantile(0.5, {total})"), 30, "it is scraped")
    stable, canary = Measure(Prometheus(server.url), SIDES).follow(is_alone=True)()
    theirs = server.value(f"histogram_quantile({LATENCY_QUANTILE}, {total})")
    assert stable.latency == pytest.approx(theirs)
    assert canary == Behaviour()


def test_a_side_that_is_not_scraped_is_told_with_the_option(scraped):
    (first, _, _), server = scraped
    first.show_lines(lines("1", "champion", fast=0, slow=0, failed=0))
    server.wait_value("count(model_info)", 1)
    measure = Measure(Prometheus(server.url), SIDES)
    measure.check("stable")
    with pytest.raises(LifecycleError, match=r'no model_info{service="canary"}: .* \(--canary-metrics\)'):
        measure.check("canary")


def test_what_was_counted_before_prometheus_scraped_is_not_of_now(scraped):
    """As after it has lost its samples: nothing says how much of a first sample is new."""
    (first, _, _), server = scraped
    prometheus = Prometheus(server.url)
    both = Measure(prometheus, SIDES).follow(is_alone=False)
    first.show_lines(lines("1", "champion", fast=1000, slow=0, failed=1000))
    server.wait_value("sum(model_prediction_errors_total)", 1000)
    first.show_lines(lines("1", "champion", fast=1007, slow=0, failed=1002))
    server.wait_value("sum(model_prediction_errors_total)", 1002)
    stable, _ = both()
    assert (stable.answered, stable.failed) == (7, 2)
