"""`scripts/replay.py`: which answers change, by the models' own numbers, and which is right."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import msgspec
import numpy as np
import pandas as pd
import pytest
from mlflow.models.signature import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

import scripts.replay
from serving.model.prepared import Manifest
from serving.monitoring.feedback.answers import answers_of
from serving.monitoring.feedback.store import Truth, open_store
from serving.monitoring.prediction_log.frames import pack, read_frames
from serving.monitoring.prediction_log.journal import Journal, find_journals
from serving.monitoring.prediction_log.rows import Rows
from serving.runtime import Output
from serving.settings import Settings
from tests.monitoring.prediction_log.answered import decoded, finished, frame_of, message
from tests.support.environment import ROOT, tracking
from tests.support.fake_service import Run
from tests.support.manifests import some_manifest
from tests.support.models import REQUIREMENTS, frame
from tests.support.prepared import take_prepared
from tests.support.promotions import NAME, Registry

WINE = frame("wine")
KINDS = [0, 1, 2]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Three good versions, the first of them in production."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.1, 0.01)


@pytest.fixture(scope="module")
def home(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a service on this machine has prepared already."""
    home = tmp_path_factory.mktemp("home")
    take_prepared(home, registry.uri)
    return home


def probabilities(registry: Registry, version: str, rows: pd.DataFrame = WINE) -> np.ndarray:
    """What MLflow's own path says."""
    with tracking(registry.uri):
        return np.asarray(mlflow.sklearn.load_model(f"models:/{NAME}/{version}").predict_proba(rows))


def manifest_of(registry: Registry, version: str, **more: Any) -> Manifest:
    with tracking(registry.uri):
        signature = mlflow.models.get_model_info(f"models:/{NAME}/{version}").signature.to_dict()
    columns = {"inputs": signature["inputs"], "params": signature.get("params"), "outputs": None}
    return some_manifest(name=NAME, version=version, **columns | {"classes": KINDS} | more)


Log = Callable[..., Path]
"""Writes a log of one request of each row of the wines, answered by a version."""


@pytest.fixture
def log(registry: Registry, tmp_path: Path) -> Iterator[Log]:
    journals = []

    def write(version: str = "1", rows: pd.DataFrame = WINE, **more: Any) -> Path:
        folder = tmp_path / "log"
        folder.mkdir(exist_ok=True)
        journals.append(Journal(folder))
        manifest = manifest_of(registry, version)
        matrix = probabilities(registry, version, rows[WINE.columns])
        settings = more.pop("settings", {})
        for position, record in enumerate(rows[WINE.columns].to_dict("records")):
            output = Output(np.array([matrix[position].argmax()]), matrix[[position]])
            request = finished(
                decoded(manifest, [record]), output, manifest, request_id=f"r{position}", **more
            )
            journals[-1].append(pack(message(request, **settings), 1))
        return folder

    yield write
    for journal in journals:
        journal.close()


@pytest.fixture
def replay(run: Run, home: Path) -> Callable[..., tuple[int, Any, str]]:
    def call(*arguments: Any, **environment: str) -> tuple[int, Any, str]:
        code, out, err = run(
            scripts.replay, *map(str, arguments), "--json", **{"BENTOML_HOME": str(home)} | environment
        )
        return code, json.loads(out) if out else None, err

    return call


def test_changes_are_those_of_the_models_own_answers(replay: Any, registry: Registry, log: Log):
    code, found, err = replay("3", "--by", "alcohol", SERVING_LOG_PREDICTIONS=str(log()))
    assert (code, err) == (0, "")
    before, after = (probabilities(registry, version) for version in ("1", "3"))
    labels = before.argmax(axis=1), after.argmax(axis=1)
    is_changed = labels[0] != labels[1]
    assert 0 < is_changed.sum() < 20
    assert (found["version"], found["champion"]) == ("3", "1")
    assert (found["rows_logged"], found["rows_asked"], found["rejected"]) == (len(WINE), len(WINE), 0)
    assert found["changes"]["changed"] == is_changed.sum()
    table = pd.Series(list(zip(*(of[is_changed] for of in labels), strict=True))).value_counts()
    assert {
        (int(one["from"]), int(one["to"])): one["rows"] for one in found["transitions"]
    } == table.to_dict()
    differences = np.abs(after - before).max(axis=1)
    assert found["changes"]["mean_probability_difference"] == pytest.approx(differences.mean(), abs=1e-9)
    assert found["changes"]["largest_probability_difference"] == pytest.approx(differences.max(), abs=1e-9)
    assert sum(part["changed"] for part in found["slices"]) == is_changed.sum()
    assert found["slices"][0]["slice"].startswith("alcohol = ")
    assert found["truth"] is None


def test_a_version_repeats_its_own_answers(replay: Any, log: Log):
    code, found, _ = replay("1", "--folder", log())
    assert (code, found["changes"]["changed"], found["transitions"]) == (0, 0, [])
    assert found["changes"]["largest_probability_difference"] < 1e-9


def test_a_truth_tells_which_version_is_better(replay: Any, registry: Registry, log: Log, tmp_path: Path):
    rows = pd.concat([WINE] * 3, ignore_index=True)
    # The truth is what version 1 says; version 3 differs in some rows.
    before, after = (probabilities(registry, version, rows).argmax(axis=1) for version in ("1", "3"))
    truths = pd.DataFrame({"request_id": [f"r{n}" for n in range(len(rows))], "row": 0, "kind": before})
    truths.loc[:9, "kind"] = None
    truths.to_csv(tmp_path / "truths.csv", index=False)
    truth = ("--truth", tmp_path / "truths.csv", "--target", "kind")
    code, found, _ = replay("3", "--folder", log(rows=rows), *truth)
    accuracy = (before == after)[10:].mean()
    assert found["truth"]["metrics"]["champion"]["accuracy"] == 1.0
    assert found["truth"]["metrics"]["version"]["accuracy"] == pytest.approx(accuracy)
    assert found["truth"]["difference"] == pytest.approx(accuracy - 1)
    assert found["truth"]["champion_labels"] == len(rows) - 10
    assert (found["truth"]["verdict"], code) == (
        ("worse", 1) if found["truth"]["high"] < 0 else ("not yet", 0)
    )


def test_feedback_is_the_truth_without_a_file(replay: Any, registry: Registry, log: Log):
    folder = log()
    environment = {"SERVING_LOG_PREDICTIONS": str(folder), "SERVING_FEEDBACK_STORE": "sqlite"}
    code, found, _ = replay("3", **environment)
    assert (code, found["truth"]) == (0, None)  # nothing has arrived yet
    before, after = (probabilities(registry, version).argmax(axis=1) for version in ("1", "3"))
    with open_store("sqlite", folder) as store:
        for path in find_journals(folder):
            for frame in read_frames(path):
                store.add_answers(answers_of(msgspec.msgpack.decode(frame.payload, type=Rows), ()))
        store.add_truths(NAME, [Truth(f"r{n}", 0, str(before[n])) for n in range(150)], [])
    _, found, _ = replay("3", **environment)
    assert found["truth"]["champion_labels"] == 150
    assert found["truth"]["metrics"]["champion"]["accuracy"] == 1.0
    assert found["truth"]["metrics"]["version"]["accuracy"] == pytest.approx((before == after)[:150].mean())
    assert "3 of the 3 example rows logged with version 3 are in the prediction log" in found["warning"]


def test_text_for_people(run: Run, log: Log, home: Path):
    code, out, err = run(
        scripts.replay, "3", "--folder", str(log()), "--limit", "100", BENTOML_HOME=str(home)
    )
    assert (code, err) == (0, "")
    first, second, third, _, head, *_ = out.splitlines()
    assert first == "preparing version 3 as a service does"
    assert second.startswith(f"{NAME} version 3 was asked 100 rows that version 1 answered from 20")
    assert second.endswith(f" UTC, a sample of {len(WINE)}")
    assert third.endswith(" %) labels change")
    assert head.split() == ["from", "to", "rows"]


class Sum(mlflow.pyfunc.PythonModel):
    """Answers with a number that depends on every input, on which are missing, and on the parameter."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        if (model_input["a"] < 0).any():
            raise ValueError("a must not be negative")
        day = (model_input["day"] - pd.Timestamp("2024-01-01")).dt.total_seconds().fillna(-1.0)
        total = model_input["a"].fillna(0.5) + day + model_input["data"].map(len)
        return (self.weight * total * (params or {}).get("factor", 1.0)).to_numpy()


COLUMNS = [
    ColSpec("double", "a", required=False),
    ColSpec("datetime", "day", required=False),
    ColSpec("binary", "data"),
]
SENT = [
    {"a": 0.1, "day": "2024-05-01T01:02:03.000000004", "data": "AP8="},
    {"day": "2024-05-01", "data": "AAAA"},
    {"a": 3.0, "data": "AA=="},
]


@pytest.fixture(scope="module")
def sums(registry: Registry) -> tuple[str, str]:
    """Two versions of a model with parameters; the second knows no day."""
    versions = []
    for weight, columns in ((1.0, COLUMNS), (1.5, COLUMNS)):

        def log_model(name: str, weight: float = weight, columns: Any = columns) -> Any:
            return mlflow.pyfunc.log_model(
                python_model=Sum(weight),
                name=name,
                registered_model_name=name,
                **REQUIREMENTS,
                signature=ModelSignature(
                    Schema(columns), params=ParamSchema([ParamSpec("factor", "double", 1.0)])
                ),
            )

        versions.append(registry.add(log_model))
    return versions[0], versions[1]


def test_missing_values_dates_binary_and_parameters_reach_the_model(
    replay: Any, registry: Registry, sums: tuple[str, str], tmp_path: Path
):
    old, new = sums
    manifest = manifest_of(registry, old, classes=None)
    rows = pd.DataFrame(
        {
            "a": [0.1, np.nan, 3.0],
            "day": pd.to_datetime(["2024-05-01T01:02:03.000000004", "2024-05-01", None], format="ISO8601"),
            "data": [b"\x00\xff", b"\x00\x00\x00", b"\x00"],
        }
    )
    expected = {}
    journal = Journal(tmp_path)
    with tracking(registry.uri):
        models = {version: mlflow.pyfunc.load_model(f"models:/{NAME}/{version}") for version in sums}
    for name, params in (("plain", {}), ("doubled", {"factor": 2.0})):
        expected[name] = {version: model.predict(rows, params or None) for version, model in models.items()}
        request = finished(
            decoded(manifest, SENT),
            Output(values=expected[name][old]),
            manifest,
            request_id=name,
            params=params,
        )
        journal.append(frame_of(request))
    refused = finished(decoded(manifest, [{"a": -1.0, "data": ""}]), Output(values=np.zeros(1)), manifest)
    journal.append(frame_of(refused))
    journal.close()
    arguments = ("--folder", tmp_path, "--champion", old)
    code, found, err = replay(old, *arguments, SERVING_ALLOW_PICKLE="true")
    assert (code, err) == (0, "")
    assert (found["changes"]["rows"], found["changes"]["changed"]) == (6, 0)
    assert found["rejections"] == [
        {"reason": "the model raised ValueError: a must not be negative", "rows": 1}
    ]
    _, found, _ = replay(new, *arguments, SERVING_ALLOW_PICKLE="true")
    differences = np.concatenate([of[new] - of[old] for of in expected.values()])
    assert found["changes"]["changed"] == 6
    assert found["changes"]["mean_difference"] == pytest.approx(differences.mean())
    assert found["changes"]["largest_difference"] == pytest.approx(np.abs(differences).max())


def test_rows_of_another_signature_are_rejected_with_the_reason(
    replay: Any, registry: Registry, log: Log, sums: tuple[str, str]
):
    code, found, err = replay(sums[0], "--folder", log(), SERVING_ALLOW_PICKLE="true")
    assert (code, found) == (2, None)
    assert f"version {sums[0]} rejects all {len(WINE)} rows: column 'alcohol': expected no such column" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3"], "no prediction log: --folder or SERVING_LOG_PREDICTIONS"),
        (["3", "--folder", "nowhere"], "nowhere is no folder"),
        (["9", "--folder", "log"], "has no version 9"),
        (["3", "--folder", "log", "--champion", "9"], "has no version 9"),
        (["3", "--folder", "log", "--champion", "2"], "there are 178 of version 1 (--champion)"),
        (["3", "--folder", "log", "--until", "2020-01-01"], "choose another with --since and --until"),
        (
            ["3", "--folder", "log", "--alias", "blue"],
            "is not set; name the version to compare with (--champion)",
        ),
        (["3", "--folder", "log", "--limit", "0"], "--limit: expected a number from 1, got 0"),
        (["3", "--folder", "log", "--tolerance", "-1"], "'-1' is not a number from 0"),
        (
            ["3", "--folder", "log", "--truth", "t.csv"],
            "--truth and --target, the column of the truth, need each other",
        ),
        (["3", "--folder", "log", "--by", "alcool"], "--by: no column 'alcool'"),
        (
            ["3", "--folder", "log", "--truth", "t.csv", "--target", "t"],
            "no row of the sample has a truth in t.csv",
        ),
        (["3", "--folder", "log", "--truth", "t.csv", "--target", "u"], "t.csv: no column 'u'"),
    ],
)
def test_what_cannot_be_replayed_is_one_line(
    arguments: list[str], message: str, replay: Any, log: Log, tmp_path: Path
):
    log()
    (tmp_path / "t.csv").write_text("request_id,row,t\nunknown,0,1\n")
    code, found, err = replay(*arguments)
    assert (code, found) == (2, None)
    assert message in err
    assert err.count("\n") == 1


def test_an_input_that_is_not_logged_makes_it_impossible(replay: Any, log: Log):
    code, _, err = replay("3", "--folder", log(settings={"log_exclude": "alcohol"}))
    assert code == 2
    assert "the prediction log lacks the values of its inputs 'alcohol' (SERVING_LOG_EXCLUDE)" in err


def test_the_commands_in_the_docs_have_options_of_the_script():
    commands = re.findall(
        r"^\$ \.venv/bin/python scripts/replay\.py (.*)",
        "".join((ROOT / "docs" / page).read_text() for page in ("monitoring.md", "lifecycle.md")),
        re.MULTILINE,
    )
    assert len(commands) == 3
    for command in commands:
        options = scripts.replay.parse_arguments(shlex.split(command), Settings())
        assert options.version in {"2", "8"}
