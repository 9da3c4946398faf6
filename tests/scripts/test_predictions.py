"""`scripts/predictions.py`: which rows it prints, and what it says without any."""

import datetime as dt
import json
from pathlib import Path

import pytest

from scripts.predictions import main
from serving.monitoring.prediction_log.journal import Journal
from tests.monitoring.prediction_log.answered import finished, frame_of, numbers
from tests.support.manifests import some_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    journal = Journal(tmp_path)
    journal.append(frame_of(finished(numbers(30), request_id="a", key=b"k")))
    other = some_manifest(version="4")
    journal.append(frame_of(finished(numbers(2), manifest=other, request_id="b", role="challenger")))
    journal.close()
    return tmp_path


@pytest.mark.parametrize(
    ("options", "n_rows"),
    [
        ([], 20),
        (["--last", "0"], 32),
        (["--version", "3", "--last", "0"], 30),
        (["--role", "challenger"], 2),
        (["--key", "k", "--last", "0"], 30),
        (["--request-id", "b"], 2),
        (["--name", "another"], 0),
        (["--since", "1h", "--last", "0"], 32),
        (["--until", "2020-01-01T09:00"], 0),
        (["--since", (dt.datetime.now(dt.UTC) + dt.timedelta(days=1)).isoformat()], 0),
    ],
)
def test_rows_are_chosen(folder: Path, options: list[str], n_rows: int, capsys: pytest.CaptureFixture[str]):
    assert main(["--folder", str(folder), "--json", *options]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == n_rows
    assert main(["--folder", str(folder), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == n_rows + 1
    assert lines[0].startswith("model  version  time" if n_rows else "no rows")


def test_columns_are_chosen(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--folder", str(folder), "--columns", "input_a,label", "--request-id", "b"]) == 0
    assert capsys.readouterr().out.splitlines() == ["input_a  label", "0        no", "1        yes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "SERVING_LOG_PREDICTIONS"),
        (["--folder", "/nowhere"], "/nowhere is no folder"),
        (["--since", "yesterday"], "24h"),
        (["--folder", ".", "--columns", "lable"], "'lable'"),
    ],
)
def test_without_a_log_it_says_what_to_do(
    folder: Path,
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SERVING_LOG_PREDICTIONS", raising=False)
    assert main(options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
