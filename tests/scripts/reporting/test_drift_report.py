"""`scripts/drift_report.py`: its numbers are those of NumPy, SciPy and `/v1/drift`; what it says without a reference."""

import datetime as dt
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

from scripts.reporting import references
from serving.model.schema import Inputs
from serving.monitoring.drift.recorder import Recorder
from serving.monitoring.drift.report import describe_drift
from serving.monitoring.prediction_log import dataset
from serving.monitoring.prediction_log.converter import run as convert
from serving.runtime import Output
from tests.monitoring.prediction_log.answered import answer, decoded, manifest_of, options
from tests.scripts.reporting.logs import answered, prepare, report, write_log
from tests.support.environment import ROOT, clean_environment
from tests.support.manifests import some_manifest
from tests.support.promotions import NAME, Registry

RANDOM = np.random.default_rng(3)

MANIFEST = manifest_of({"type": "double", "name": "age"}, {"type": "string", "name": "plan"})


def rows(n: int, shift: float = 0, plans: tuple[str | None, ...] = ("basic", "plus", "pro", None)) -> Inputs:
    ages = RANDOM.normal(40 + shift, 10, n)
    ages[: n // 20] = np.nan
    return Inputs((ages, RANDOM.choice(np.array(plans, dtype=object), n)), n)


def shares(values: np.ndarray[Any, Any], reference: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Independent of our code: deciles by sorting, shares by counting, half a row more in each bin."""
    old = np.sort(reference[~np.isnan(reference)])
    edges = np.unique([old[0] - 1e-9, *(old[int(np.ceil(len(old) * k / 10)) - 1] for k in range(1, 11))])
    there = values[~np.isnan(values)]
    up_to = [(there <= edge).sum() for edge in edges]
    counts = [np.isnan(values).sum(), *np.diff([0, *up_to]), (there > edges[-1]).sum()]
    return (np.array(counts) + 0.5) / (len(values) + 0.5 * len(counts))


def test_the_numbers_are_those_of_scipy(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    reference = rows(1000)
    prepare(MANIFEST, reference, answer(1000), tmp_path / "home")
    plans = ("basic", "gold", None)
    old, new = rows(2000, 0, plans), rows(2000, 12, plans)
    old_request, new_request = answered(MANIFEST, old, hours_ago=3), answered(MANIFEST, new)
    write_log(tmp_path / "log", old_request, new_request)

    code, facts, err = report(tmp_path / "log", capsys)

    assert (code, err) == (0, "")
    (model,) = facts["models"]
    assert (model["rows"], model["roles"]) == (4000, {"champion": 4000})
    assert model["drifted"] == ["plan", "age"]
    found = {one["feature"]: one for one in model["features"] if one["kind"] == "input"}
    age, (was, is_now) = (
        found["age"],
        (reference.columns[0], np.concatenate((old.columns[0], new.columns[0]))),
    )
    p, q = shares(is_now, was), shares(was, was)
    assert age["psi"] == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    assert age["js_distance"] == pytest.approx(distance.jensenshannon(p, q))
    assert age["total_variation"] == pytest.approx(np.abs(p - q).sum() / 2)
    assert age["p_value"] == pytest.approx(
        stats.chi2.sf(age["psi"] / (1 / 4000 + 1 / 1000), len(p) - 1), rel=1e-6
    )
    assert age["missing_ratio"] == {"now": 0.05, "reference": 0.05}
    assert age["mean"]["now"] == pytest.approx(np.nanmean(is_now))
    # Of 1,000 random rows, of which some have no age.
    assert age["ks"]["rows"] == pytest.approx(950, abs=30)
    exact = stats.ks_2samp(is_now[~np.isnan(is_now)], was[~np.isnan(was)]).statistic
    assert age["ks"]["statistic"] == pytest.approx(exact, abs=0.05)
    is_gold = np.concatenate((old.columns[1], new.columns[1])) == "gold"
    assert found["plan"]["unknown_ratio"]["now"] == is_gold.mean()
    # The first part is as the reference, the second is not.
    quiet, loud = age["over_time"]
    assert [quiet["rows"], loud["rows"]] == [2000, 2000]
    for part, values in ((quiet, old.columns[0]), (loud, new.columns[0])):
        p = shares(values, was)
        assert part["psi"] == pytest.approx(stats.entropy(p, q) + stats.entropy(q, p))
    times = [dt.datetime.fromisoformat(part["time"]) for part in (quiet, loud)]
    assert times[1] - times[0] == dt.timedelta(hours=3)
    assert times[0].strftime("%M:%S %Z") == "00:00 UTC"


KINDS = manifest_of(
    {"type": "double", "name": "number"},
    {"type": "long", "name": "whole"},
    {"type": "boolean", "name": "flag"},
    {"type": "string", "name": "text"},
    {"type": "string", "name": "number as text"},
    {"type": "datetime", "name": "moment"},
    {"type": "array", "name": "list", "items": {"type": "double"}},
    classes=[0, 1],
)


def instances(n: int, n_texts: int = 4) -> list[dict[str, Any]]:
    def maybe(value: Any) -> Any:
        return None if RANDOM.random() < 0.1 else value

    return [
        {
            "number": maybe(float(RANDOM.normal())),
            "whole": maybe(int(RANDOM.integers(0, 5))),
            "flag": maybe(bool(RANDOM.random() < 0.3)),
            "text": maybe(f"t{RANDOM.integers(0, n_texts)}"),
            "number as text": maybe("unknown" if RANDOM.random() < 0.02 else f"{RANDOM.normal():.3f}"),
            "moment": maybe("2026-11-28T12:00:00"),
            "list": maybe([1.0, 2.0]),
        }
        for _ in range(n)
    ]


TENSOR = json.dumps([{"type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 2, 3]}}])


def labels(n: int, p: float) -> Output:
    chance = RANDOM.random(n)
    return Output((chance < p).astype(np.int64), np.column_stack([1 - chance, chance]))


CASES = {
    "columns of every kind, and labels that are numbers": (
        KINDS,
        lambda n, seed: (decoded(KINDS, instances(n, 4 + seed)), labels(n, 0.5 + seed / 10)),
    ),
    "a tensor, and several values for each row": (
        some_manifest(inputs=TENSOR, classes=None, has_probabilities=False),
        lambda n, seed: (
            Inputs((RANDOM.normal(seed, 1, (n, 2, 3)).astype(np.float32),), n),
            Output(values=RANDOM.normal(seed, 1, (n, 2))),
        ),
    ),
    "several labels for each row": (
        some_manifest(),
        lambda n, seed: (
            Inputs((RANDOM.normal(seed, 1, n),), n),
            Output(labels=RANDOM.choice(np.array(["a", "b", "c"][seed:], dtype=object), (n, 2))),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_says_what_the_service_says_of_the_same_rows(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    manifest, make = CASES[case]
    reference = prepare(manifest, *make(300, 0), tmp_path / "home")
    requests = [answered(manifest, *make(n, 1)) for n in (500, 1, 299)]
    recorder = Recorder(manifest, reference, "key", None, n_inputs=50, window_seconds=3600.0)
    for request in requests:
        recorder.observe(request)
    told = describe_drift(recorder, [list(feature.bins) for feature in recorder.features])
    write_log(tmp_path / "log", *requests)

    code, facts, err = report(tmp_path / "log", capsys)

    assert (code, err) == (0, "")
    (model,) = facts["models"]
    assert model["not_compared"] == []
    assert len(told["features"]) >= 3
    for one in model["features"]:
        del one["over_time"]
    assert model["features"] == [approximately(one) for one in told["features"]]
    assert [model[name] for name in ("drifted", "rows", "note")] == [
        told[name] for name in ("drifted", "rows", "note")
    ]


def approximately(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: approximately(one) for name, one in value.items()}
    if isinstance(value, list):
        return [approximately(one) for one in value]
    return pytest.approx(value) if isinstance(value, float) else value


def test_inputs_that_are_not_logged_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    inputs = decoded(KINDS, [one | {"list": None} for one in instances(300)])
    prepare(KINDS, inputs, labels(300, 0.5), tmp_path / "home")
    request = answered(KINDS, inputs, labels(300, 0.5))
    hidden = {"log_exclude": "number", "log_hash": "text", "log_hash_key": "k" * 32}
    write_log(tmp_path / "log", request, **hidden)
    _, facts, _ = report(tmp_path / "log", capsys)
    (model,) = facts["models"]
    assert {one["input"]: one["why"].partition(":")[0] for one in model["not_compared"]} == {
        "number": "not logged (SERVING_LOG_EXCLUDE)",
        "text": "logged as a hash (SERVING_LOG_HASH)",
        "list": "no bins",
    }
    assert {"number", "text", "list"}.isdisjoint(one["feature"] for one in model["features"])


def test_days_and_versions_of_files_and_journals(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Files are read by group of rows."""
    monkeypatch.setattr(dataset, "GROUP_ROWS", 100)
    other = some_manifest(version="4", inputs=MANIFEST.inputs)
    for manifest in (MANIFEST, other):
        prepare(manifest, rows(600), answer(600), tmp_path / "home")
    write_log(tmp_path / "log", *(answered(MANIFEST, rows(250), hours_ago=30 * n) for n in range(3)))
    convert(options(tmp_path), dt.date(1970, 1, 1))
    write_log(tmp_path / "log", answered(other, rows(700)))
    code, facts, err = report(tmp_path / "log", capsys, "--since", "10d")
    assert (code, err) == (0, "")
    assert [(one["version"], one["rows"]) for one in facts["models"]] == [("3", 750), ("4", 700)]
    assert [part["rows"] for part in facts["models"][0]["features"][0]["over_time"]] == [250] * 3
    _, facts, _ = report(tmp_path / "log", capsys, "--version", "4")
    assert [one["version"] for one in facts["models"]] == ["4"]


def test_a_version_without_reference_is_a_warning_beside_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare(MANIFEST, rows(600), answer(600), tmp_path / "home")
    other = some_manifest(version="4", inputs=MANIFEST.inputs)
    write_log(tmp_path / "log", answered(MANIFEST, rows(600)), answered(other, rows(600)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
        code, facts, _ = report(tmp_path / "log", capsys)
        assert code == 0
        assert [one["version"] for one in facts["models"]] == ["3"]
        (left_out,) = facts["left_out"]
        code, _, err = report(tmp_path / "log", capsys, "--version", "4")
    assert code == 2
    assert err == f"drift_report.py: {left_out['why']}\n"
    assert "no reference of 'churn' version 4: no such model prepared here (BENTOML_HOME)" in err


def test_of_two_models_of_a_name_the_registry_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    monkeypatch.setattr(references, "_prepare", lambda name, version, _: asked.append(f"{name} {version}"))
    from serving.settings import Settings

    for n, digest in enumerate(("one", "one", "another")):
        manifest = some_manifest(inputs=MANIFEST.inputs, source_key=f"registry {n}", digest=digest)
        prepare(manifest, rows(60), answer(60), tmp_path)
        references.find_reference("churn", "3", Settings())
        assert asked == (["churn 3"] if digest == "another" else [])


def test_a_version_that_is_not_prepared_here_comes_from_the_registry(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    registry = Registry(tmp_path / "registry", 1.0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.uri)
    manifest = some_manifest(name=NAME, version="1")
    write_log(tmp_path / "log", answered(manifest, Inputs((np.zeros(5),), 5)))
    code, facts, err = report(tmp_path / "log", capsys)
    assert (code, err) == (0, "")
    (model,) = facts["models"]
    assert model["reference"]["rows"] > 1
    assert {one["feature"] for one in model["features"]} == {"label", "score"}
    assert {one["input"] for one in model["not_compared"]} >= {"alcohol", "malic_acid"}
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--folder", "/nowhere"], "/nowhere is no folder"),
        (["--until", "2020-01-01"], "--since must be before --until"),
        (
            ["--since", "2020-01-01", "--until", "2020-01-02"],
            "no rows between 2020-01-01 00:00 and 2020-01-02 00:00 UTC",
        ),
        (["--name", "beer", "--version", "9"], "has no rows of model 'beer' of version '9' between"),
        (["--out", "/nowhere/drift.html"], "--out: /nowhere is no folder"),
        (["--out", "/"], "/: Is a directory"),
        (["--since", "yesterday"], "24h"),
    ],
)
def test_what_is_missing_is_told_in_a_line(
    given: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    prepare(MANIFEST, rows(60), answer(60), tmp_path / "home")
    write_log(tmp_path / "log", answered(MANIFEST, rows(60)))
    code, _, err = report(tmp_path / "log", capsys, *given)
    assert code == 2
    assert words in err
    assert err.count("\n") == 1


def test_the_documented_command_writes_a_page(tmp_path: Path):
    page = (ROOT / "docs" / "monitoring.md").read_text()
    (command,) = [line for line in page.splitlines() if "drift_report.py --" in line]
    prepare(MANIFEST, rows(60), answer(60), tmp_path / "home")
    write_log(tmp_path / "log", answered(MANIFEST, rows(600)))
    words = shlex.split(command.replace("/var/log/predictions", f"{tmp_path}/log"))
    done = subprocess.run(
        [sys.executable, str(ROOT / words[2]), *words[3:]],
        cwd=tmp_path,
        env=clean_environment() | {"BENTOML_HOME": f"{tmp_path}/home", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("churn version 3: 600 rows against 60 of the reference; drifted: nothing (")
    assert (tmp_path / "drift.html").read_text().startswith("<!DOCTYPE html>")
