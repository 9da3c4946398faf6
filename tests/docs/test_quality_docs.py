"""docs/monitoring.md, section "Quality": its commands run, and its tables have what the scripts print."""

import importlib
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from scripts.compare import EXIT_CODES
from scripts.evaluate import METRICS
from serving.monitoring.quality.comparison import MIN_LABELS
from serving.monitoring.quality.metrics import MEANS
from tests.support.environment import ROOT
from tests.support.prediction_log import make_log, write_log, write_truths

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
SECTION = PAGE.partition("\n## Quality\n")[2].partition("\n## ")[0]
COMMANDS = re.findall(r"^\$ \.venv/bin/python (scripts/(?:evaluate|compare)\.py .*)", SECTION, re.MULTILINE)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows, better = make_log(3_000, skill=0.5), make_log(3_000, version=8, role="shadow", skill=0.7)
    write_log(tmp_path / "predictions", pd.concat([rows, better]))
    write_truths(tmp_path / "truths.csv", rows[:2_000])
    rows.rename(columns={"label": "answer", "score": "probability"}).to_csv("scored.csv", index=False)
    return tmp_path


def test_every_command_runs(files, capsys):
    assert len(COMMANDS) == 4
    for command in COMMANDS:
        script, *arguments = shlex.split(command)
        main = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
        assert main(arguments) == 0, command
        assert capsys.readouterr().err == ""
    assert (files / "calibration.svg").read_text().startswith("<svg")


def test_output_has_the_form_that_is_shown(files, capsys):
    (shown,) = re.findall(r"```\n(version 8 .*?)```", SECTION, re.DOTALL)
    main = importlib.import_module("scripts.compare").main
    assert main(["predictions", "--truth", "truths.csv", "--target", "churned"]) == 0
    printed = capsys.readouterr().out
    number = re.compile(r"[+-]?\d[\d.,]*\d")
    assert number.sub("N", printed) == number.sub("N", shown)


def test_tables_have_every_metric_and_exit_code():
    documented = {
        name
        for row in re.findall(r"^\| (`.*?) \|", SECTION, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert documented == set(METRICS)
    codes = dict(re.findall(r"^\| (\d) \| (\w+(?: yet)?)", SECTION, re.MULTILINE))
    assert {verdict: int(code) for code, verdict in codes.items() if code != "2"} == EXIT_CODES
    for metrics in MEANS.values():
        assert all(f"`{metric}`" in SECTION for metric in metrics)
    assert f"each version needs {MIN_LABELS} labels" in SECTION
