"""`serving.monitoring.drift`: what several workers counted is one report, which NumPy and SciPy agree with."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy import stats
from scipy.spatial import distance

from serving.model.schema import Column, Form, Inputs, Kind, Schema, Type
from serving.monitoring.drift import recorder, tally
from serving.monitoring.drift.exposition import Exposition, exposition
from serving.monitoring.drift.recorder import Recorder
from serving.monitoring.drift.reference import Reference, freeze
from serving.monitoring.drift.report import describe_drift
from serving.monitoring.finished import Finished
from serving.runtime import Output
from tests.support.manifests import some_manifest

SCHEMA = Schema((Column("age", Type(Kind.DOUBLE)), Column("plan", Type(Kind.STRING))), Form.RECORD)

RANDOM = np.random.default_rng(7)


def rows(n: int, shift: float = 0) -> Inputs:
    plans = RANDOM.choice(np.array(["basic", "plus", "pro", None], dtype=object), n, p=[0.5, 0.3, 0.1, 0.1])
    return Inputs((RANDOM.normal(40 + shift, 10, n), plans), n)


def answers(n: int) -> Output:
    p = RANDOM.random(n)
    return Output(
        labels=np.where(p > 0.5, "yes", "no").astype(object), probabilities=np.column_stack([1 - p, p])
    )


REFERENCE = freeze(SCHEMA, sample := rows(1000), answers(1000), is_sample=True)


def finished(inputs: Inputs, output: Output | None = None) -> Finished:
    output = output or answers(inputs.n_rows)
    return Finished("", None, some_manifest(), "champion", inputs, {}, output, 0, 0.0, time.perf_counter())


def worker(
    folder: Path | None,
    pid: int,
    monkeypatch: pytest.MonkeyPatch,
    reference: Reference = REFERENCE,
    **more: Any,
) -> Recorder:
    monkeypatch.setattr(os, "getpid", lambda: pid)
    if folder is not None:
        folder.mkdir(exist_ok=True)
    options = {"n_inputs": 50, "window_seconds": 3600.0} | more
    return Recorder(some_manifest(), reference, "churn:1", folder, **options)


def report(of: Recorder) -> dict[str, Any]:
    found = describe_drift(of, [list(feature.bins) for feature in of.features])
    return {**found, "features": {one["feature"]: one for one in found["features"]}}


def test_two_workers_are_one_report_that_scipy_agrees_with(tmp_path, monkeypatch):
    first, second = (worker(tmp_path, pid, monkeypatch) for pid in (1, 2))
    sent = [rows(n, shift=15) for n in (1, 1, 300, 1, 250, 700)]
    for position, part in enumerate(sent):
        (first, second)[position % 2].observe(finished(part))
        (first, second)[position % 2].flush(is_forced=True)
    ages = np.concatenate([part.columns[0] for part in sent])

    now = report(second)

    assert (now["rows"], now["rows_answered"], now["drifted"], now["note"]) == (1253, 1253, ["age"], "")
    age = now["features"]["age"]
    assert age["mean"]["now"] == pytest.approx(ages.mean())
    old = sample.columns[0]
    # Independent of our code: deciles by sorting, shares by counting.
    edges = [np.sort(old)[0] - 1e-9, *(np.sort(old)[100 * k - 1] for k in range(1, 11))]
    live = [0, (ages <= edges[0]).sum(), *np.histogram(ages, edges)[0], (ages > edges[-1]).sum()]
    p = (np.array(live) + 0.5) / (len(ages) + 0.5 * 13)
    q = (np.array([0, 0, *[100] * 10, 0]) + 0.5) / (1000 + 0.5 * 13)
    assert age["psi"] == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    assert age["js_distance"] == pytest.approx(distance.jensenshannon(p, q))
    assert age["total_variation"] == pytest.approx(np.abs(p - q).sum() / 2)
    assert age["psi_by_chance"] == pytest.approx(stats.chi2.isf(0.001, 12) * (1 / 1253 + 1 / 1000))
    assert age["out_of_range_ratio"]["now"] == pytest.approx(((ages < old.min()) | (ages > old.max())).mean())
    # The statistic comes from a sample of at most 1,000 of these rows.
    assert age["ks"]["rows"] <= 1000
    assert age["ks"]["statistic"] == pytest.approx(stats.ks_2samp(ages, old).statistic, abs=0.05)
    plan = now["features"]["plan"]
    plans = np.concatenate([part.columns[1] for part in sent])
    assert plan["missing_ratio"]["now"] == pytest.approx((plans == None).mean())  # noqa: E711  # by element
    assert not plan["has_drifted"]


def test_prometheus_sees_the_sums_of_all_workers(tmp_path, monkeypatch):
    first, second = (worker(tmp_path, pid, monkeypatch) for pid in (1, 2))
    inputs = rows(600)
    for one in (first, second):
        one.observe(finished(inputs))
        one.flush(is_forced=True)
    shown = Exposition(some_manifest(), second, shows_values=True)
    families = {f.name: f for f in text_string_to_metric_families(exposition([shown]).decode())}

    def total(name: str, feature: str) -> float:
        return sum(s.value for s in families[name].samples if s.labels["feature"] == feature)

    assert total("model_feature_bin", "age") == total("model_feature_bin", "plan") == 1200
    # As docs/monitoring.md says: two for each of 13 bins, and three more.
    assert sum(s.labels["feature"] == "age" for f in families.values() for s in f.samples) == 29
    assert total("model_feature_mean", "age") == pytest.approx(inputs.columns[0].mean())
    assert total("model_feature_reference_share", "plan") == pytest.approx(1)
    assert total("model_feature_reference_rows", "age") == 1000
    limits = {s.labels["feature"]: s.value for s in families["model_feature_chi_squared_limit"].samples}
    assert limits == pytest.approx(
        {one.name: stats.chi2.isf(0.001, len(one.bins) - 1) for one in second.features}
    )
    bins = {s.labels["bin"] for s in families["model_feature_bin"].samples if s.labels["feature"] == "plan"}
    assert bins == {"missing", "basic", "plus", "pro", "other"}


def test_values_of_the_reference_can_be_kept_out_of_the_metrics(tmp_path, monkeypatch):
    shown = Exposition(some_manifest(), worker(tmp_path, 1, monkeypatch), shows_values=False)
    bins = {name for names in shown.bin_names for name in names}
    assert bins == {"missing", "below", "above", "other", *(f"bin {n}" for n in range(1, 12))}


def test_every_bin_is_zero_from_the_start(tmp_path, monkeypatch):
    text = exposition(
        [Exposition(some_manifest(), worker(tmp_path, 1, monkeypatch), shows_values=True)]
    ).decode()
    values = [
        s.value
        for f in text_string_to_metric_families(text)
        for s in f.samples
        if f.name == "model_feature_bin"
    ]
    assert values == [0.0] * (13 + 5 + 13 + 4)


def test_names_cannot_break_the_metrics(tmp_path, monkeypatch):
    name = 'a"\\\n}x'
    schema = Schema((Column(name, Type(Kind.DOUBLE)),), Form.RECORD)
    odd = freeze(schema, Inputs((np.arange(3.0),), 3), None, is_sample=True)
    shown = Exposition(some_manifest(name=name), worker(tmp_path, 1, monkeypatch, odd), shows_values=True)
    families = list(text_string_to_metric_families(exposition([shown]).decode()))
    assert {(s.labels["feature"], s.labels["model_name"]) for f in families for s in f.samples} == {
        (name, name)
    }


def test_the_window_forgets_and_the_counters_do_not(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    one = worker(tmp_path, 1, monkeypatch, window_seconds=60.0)
    for at, n in ((1000.0, 10), (1030.0, 20), (1062.0, 40)):
        clock[0] = at
        one.observe(finished(rows(n)))
        one.flush(is_forced=True)
    assert report(one)["rows"] == 60
    assert len(one.tallies()[0].sample(clock[0])) == 60
    clock[0] = 2000.0
    assert report(one)["rows"] == 0
    assert Recorder.tallies(one)[0].totals[1] == 70


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, monkeypatch):
    one = worker(tmp_path, 1, monkeypatch)
    for at in (2e9, 1e9):
        monkeypatch.setattr(time, "time", lambda at=at: at)
        one.observe(finished(rows(10)))
        one.flush(is_forced=True)
    assert report(one)["rows"] == 20


@pytest.mark.parametrize(("n_rows", "says"), [(499, "not enough rows to tell drift: 499 of 500"), (500, "")])
def test_few_rows_are_not_called_drift(n_rows, says, tmp_path, monkeypatch):
    one = worker(tmp_path, 1, monkeypatch)
    one.observe(finished(rows(n_rows, shift=50)))
    now = report(one)
    assert now["note"] == says
    assert now["drifted"] == (["age"] if n_rows == 500 else [])


@pytest.mark.parametrize("n_rows", [1, 5, 50])
def test_a_small_reference_says_so_and_raises_no_false_alarm(n_rows, tmp_path, monkeypatch):
    few = rows(n_rows)
    one = worker(tmp_path, 1, monkeypatch, freeze(SCHEMA, few, answers(n_rows), is_sample=False))
    one.observe(finished(rows(1000)))
    now = report(one)
    assert now["drifted"] == []
    assert f"the reference has {n_rows} row" in now["note"]
    assert now["reference"] == {"rows": n_rows, "is_sample": False}


def test_a_large_request_is_counted_by_evenly_spaced_rows(tmp_path, monkeypatch):
    one = worker(tmp_path, 1, monkeypatch)
    inputs = Inputs((np.linspace(0, 1, 50_000), np.full(50_000, "basic", dtype=object)), 50_000)
    one.observe(finished(inputs))
    now = report(one)
    assert (now["rows"], now["rows_answered"]) == (recorder.MAX_REQUEST_ROWS, 50_000)
    assert now["features"]["age"]["mean"]["now"] == pytest.approx(0.5, abs=1e-4)


def test_a_burst_is_counted_in_full_and_sustained_traffic_by_a_sample(tmp_path, monkeypatch):
    one = worker(tmp_path, 1, monkeypatch)
    started = time.perf_counter()

    def send(n_requests: int, n_rows: int, seconds: float) -> int:
        nonlocal started
        before = report(one)["rows"]
        inputs, output = rows(n_rows), answers(n_rows)
        for position in range(1, n_requests + 1):
            at = started + position * seconds / n_requests
            one.observe(msgspec.structs.replace(finished(inputs, output), ended=at))
        started += seconds
        return report(one)["rows"] - before

    assert send(9_000, 1, 1) == 9_000
    send(2_000, 1, 1)  # uses up what is left
    assert send(20_000, 1, 10) == pytest.approx(10 * recorder.ROWS_PER_SECOND, rel=0.01)
    # Requests of many rows contribute some rows each, now and then.
    assert send(500, 1_000, 10) == pytest.approx(10 * recorder.ROWS_PER_SECOND, rel=0.05)
    assert report(one)["rows_answered"] == 9_000 + 2_000 + 20_000 + 500_000


def test_rows_wait_for_others_but_not_for_long(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    one = worker(tmp_path, 1, monkeypatch)
    one.observe(finished(rows(1)))
    one.flush()
    assert one._tally.totals[1] == 0
    clock[0] += recorder.BULK_SECONDS
    one.flush()
    assert one._tally.totals[1] == 1


def test_rows_that_cannot_be_counted_cost_no_answer(tmp_path, monkeypatch, caplog):
    one = worker(tmp_path, 1, monkeypatch)
    broken = Inputs((np.zeros(3), np.array(["basic", "plus"], dtype=object)), 2)
    one.observe(finished(broken, answers(2)))
    one.flush(is_forced=True)
    assert "rows are not counted for drift" in caplog.text
    one.observe(finished(rows(10)))
    assert report(one)["rows"] == 10


def test_without_space_a_worker_is_not_shown_until_there_is_some(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    other = worker(tmp_path, 2, monkeypatch)
    other.observe(finished(rows(7)))
    other.flush(is_forced=True)
    with monkeypatch.context() as patch:
        patch.setattr(tally, "reserve", full)
        one = worker(tmp_path, 1, monkeypatch)
        for _ in range(3):
            one.observe(finished(rows(10)))
            # Whoever is asked, the sums are those of the workers that have a file.
            assert report(one)["rows"] == 7
    assert caplog.text.count("No space left on device") == 1
    one.observe(finished(rows(10)))
    assert report(one)["rows"] == 7 + 40
    assert "are shown in /v1/drift again" in caplog.text


def test_counts_survive_their_deleted_folder(tmp_path, monkeypatch):
    one = worker(tmp_path / "drift", 1, monkeypatch)
    one.observe(finished(rows(10)))
    assert report(one)["rows"] == 10
    shutil.rmtree(tmp_path / "drift")
    assert report(one)["rows"] == 0
    one.observe(finished(rows(5)))
    assert report(one)["rows"] == 15


def test_a_model_that_is_loaded_again_counts_on(tmp_path, monkeypatch):
    before = worker(tmp_path, 1, monkeypatch)
    before.observe(finished(rows(10)))
    before.close()
    again = worker(tmp_path, 1, monkeypatch)
    again.observe(finished(rows(5)))
    assert report(again)["rows"] == 15


def test_files_of_models_that_were_unloaded_long_ago_are_deleted(tmp_path, monkeypatch):
    worker(tmp_path, 1, monkeypatch).close()
    before, again = (worker(tmp_path, 2, monkeypatch) for _ in range(2))
    before.close()  # after the model was loaded again
    again.observe(finished(rows(1)))
    again.flush(is_forced=True)
    gone, used = sorted(tmp_path.iterdir())
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + tally.KEPT_SECONDS + 10)
    tally.open_tally(tmp_path / "another.1", REFERENCE.features, 60.0)
    assert not gone.exists()
    assert used.exists()


def test_last_bits_of_outputs_are_no_drift(tmp_path, monkeypatch):
    """A library adds up in another order for one row than for many."""
    values = RANDOM.choice([0.1, 0.3, 0.7], 1000)
    reference = freeze(SCHEMA, sample, Output(values=values), is_sample=True)
    for pid, factor in enumerate((1 - 1e-15, 1 + 1e-15, 1.0), start=1):
        one = worker(tmp_path / str(pid), pid, monkeypatch, reference)
        one.observe(finished(sample, Output(values=values * factor)))
        value = report(one)["features"]["value"]
        assert value["psi"] == pytest.approx(0, abs=1e-9)
        assert value["ks"]["statistic"] == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("n_reference", [20, 50, 100])
def test_many_rare_categories_are_no_drift(n_reference, tmp_path, monkeypatch):
    def texts(n: int) -> Inputs:
        drawn = RANDOM.integers(0, 100, n)
        return Inputs((np.zeros(n), np.array([f"c{i}" for i in drawn], dtype=object)), n)

    drifted = 0
    for run in range(20):
        one = worker(
            tmp_path / str(run),
            1,
            monkeypatch,
            freeze(SCHEMA, texts(n_reference), answers(n_reference), is_sample=True),
        )
        one.observe(finished(texts(1000)))
        plan = report(one)["features"]["plan"]
        drifted += plan["psi"] > max(plan["psi_by_chance"], 0.25)
    assert drifted <= 1
