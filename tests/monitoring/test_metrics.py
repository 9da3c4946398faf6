"""`serving.monitoring.metrics`: what is kept until it is written adds up to what was observed."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from serving.model.schema import Inputs
from serving.monitoring import metrics
from serving.monitoring.finished import Finished
from serving.monitoring.metrics import LATENCY_BUCKETS_SECONDS, ModelMetrics, RoleMetrics, _Observations
from serving.runtime import Output
from tests.support.manifests import some_manifest


def samples(histogram: Histogram) -> dict[tuple[str, str], float]:
    (family,) = histogram.collect()
    return {(s.name, s.labels.get("le", "")): s.value for s in family.samples if "created" not in s.name}


@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(LATENCY_BUCKETS_SECONDS)), max_size=30))
def test_observations_that_are_written_later_fall_into_the_same_buckets(values):
    registry = CollectorRegistry()
    at_once, later = (
        Histogram(name, "", buckets=LATENCY_BUCKETS_SECONDS, registry=registry) for name in ("a", "b")
    )
    kept = _Observations(later)
    for index, value in enumerate(values):
        at_once.observe(value)
        kept.add(value)
        if index % 7 == 0:
            kept.flush()
    kept.flush()
    kept.flush()  # there is nothing left to write

    expected = {(name.replace("a_", "b_", 1), le): value for (name, le), value in samples(at_once).items()}
    got = samples(later)
    assert got.pop(("b_sum", "")) == pytest.approx(expected.pop(("b_sum", "")))
    assert got == expected


def counted(name: str) -> dict[str, float]:
    out = {}
    for metric in (
        metrics.predictions_total,
        metrics.predicted_class_total,
        metrics.latency_seconds,
        metrics.input_size_bytes,
    ):
        for family in metric.collect():
            for sample in family.samples:
                if sample.labels.get("model_name") == name and not sample.name.endswith(
                    ("_created", "_bucket")
                ):
                    out[sample.name + sample.labels.get("predicted_class", "")] = sample.value
    return out


def finished(labels: Any, n_bytes: int = 0) -> Finished:
    rows = Inputs((np.zeros(len(labels)),), len(labels))
    return Finished("", None, some_manifest(), "champion", rows, {}, Output(labels=labels), n_bytes, 0.0, 0.5)


def test_rows_requests_and_classes_are_counted_once_they_are_written():
    observed = RoleMetrics(some_manifest(name="counted"), "champion")
    observed.observe(finished(np.array(["no", "yes", "no"], dtype=object), n_bytes=2000))
    observed.observe(finished(np.array(["no"], dtype=object), n_bytes=200))
    assert counted("counted")["model_predictions_total"] == 0

    observed.flush()

    now = counted("counted")
    assert now["model_predictions_total"] == 4
    assert now["model_prediction_latency_seconds_count"] == 2
    assert now["model_prediction_latency_seconds_sum"] == pytest.approx(1.0)
    assert now["model_input_size_bytes_sum"] == 2200
    assert (now["model_predicted_class_totalno"], now["model_predicted_class_totalyes"]) == (3, 1)


def test_classes_beyond_the_limit_are_counted_together():
    observed = RoleMetrics(some_manifest(name="many", classes=list(range(60))), "champion")
    observed.observe(finished(np.array([0, 55, 59])))
    observed.flush()
    now = counted("many")
    assert (now["model_predicted_class_total0"], now["model_predicted_class_totalother"]) == (1, 2)


def test_a_model_that_is_loaded_again_before_its_last_request_has_ended_is_told_as_loaded():
    manifest = some_manifest(version="loaded twice")

    def told() -> list[float]:
        (family,) = metrics.model_info.collect()
        return [s.value for s in family.samples if s.labels["model_version"] == "loaded twice"]

    before, again = (ModelMetrics(manifest, "native", counts_requests=True) for _ in range(2))
    before.close()
    assert told() == [1]
    again.close()
    assert told() == [0]
