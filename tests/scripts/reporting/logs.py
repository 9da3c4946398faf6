"""A prediction log of a prepared model, without training one."""

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scripts import drift_report
from serving.model.prepared import Manifest, store_version
from serving.model.schema import Inputs, parse_schema
from serving.monitoring.drift.reference import FILE, Reference, freeze
from serving.monitoring.finished import Finished
from serving.monitoring.prediction_log.frames import pack
from serving.monitoring.prediction_log.journal import Journal
from serving.runtime import Output
from tests.monitoring.prediction_log.answered import finished, message

HOUR = 3600


def prepare(manifest: Manifest, inputs: Inputs, output: Output | None, home: Path) -> Reference:
    """Puts a prepared model into a BENTOML_HOME that has no more than a report needs; returns its reference."""
    schema = parse_schema(manifest.inputs, manifest.params, manifest.nulls)
    reference = freeze(schema, inputs, output, is_sample=True)
    folder = home / "models" / manifest.name / store_version(manifest)
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    (folder / FILE).write_bytes(msgspec.json.encode(reference))
    return reference


def answered(
    manifest: Manifest, inputs: Inputs, output: Output | None = None, hours_ago: float = 0
) -> Finished:
    """A request that was answered some hours ago."""
    ended = time.perf_counter() - HOUR * hours_ago
    return finished(inputs, output, manifest, started=ended - 0.001, ended=ended)


def write_log(folder: Path, *requests: Finished, **settings: Any) -> None:
    """Appends requests to a journal, as the service does."""
    folder.mkdir(exist_ok=True)
    journal = Journal(folder)
    for request in requests:
        journal.append(pack(message(request, **settings), request.inputs.n_rows))
    journal.close()


def report(
    folder: Path, capsys: pytest.CaptureFixture[str], *options: str, home: Path | None = None
) -> tuple[int, dict[str, Any], str]:
    """Runs the script; returns its exit code, the facts of --json, and stderr."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(home or folder.parent / "home"))
        page = folder.parent / "drift.html"
        code = drift_report.main(["--folder", str(folder), "--out", str(page), "--json", *options])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err
