"""How logged requests are put into calls, and which rows of a rejected call are to blame."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts.replaying import candidate as module
from scripts.replaying.candidate import Candidate
from scripts.replaying.sample import read_sample
from serving.model.prepared import Prepared
from serving.model.schema import Inputs, parse_schema
from serving.monitoring.prediction_log.journal import Journal
from serving.monitoring.prediction_log.reading import ALWAYS
from serving.runtime import Output
from serving.settings import Settings
from tests.monitoring.prediction_log.answered import finished, frame_of, manifest_of, numbers

PARAMS = '[{"name": "factor", "type": "double", "default": 1.0}]'


class Mean:
    """Answers with a row's distance from the mean of its call; raises on a 13."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def predict(self, inputs: Inputs, params: dict[str, Any]) -> Output:
        (a,) = inputs.columns
        if (a == 13).any():
            raise ValueError("unlucky")
        self.calls.append(len(a))
        return Output(values=(a - a.mean()) * params.get("factor", 1.0))


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Mean:
    runtime = Mean()
    monkeypatch.setattr(module, "load_runtime", lambda *_, **__: runtime)
    return runtime


def asked(folder: Path, *, is_rowwise: bool):
    manifest = manifest_of({"name": "a", "type": "double"}, params=PARAMS, is_rowwise=is_rowwise)
    journal = Journal(folder)
    for number, size in enumerate((2, 1_500, 3, 2)):
        params = {"factor": 2.0} if number == 3 else {}
        request = finished(
            numbers(size, 10 * number), manifest=manifest, request_id=f"r{number}", params=params
        )
        journal.append(frame_of(request))
    journal.close()
    schema = parse_schema(manifest.inputs)
    return Candidate(Prepared(folder, manifest), Settings()).ask(
        read_sample(folder, "churn", "3", ALWAYS, 10_000), schema
    )


def test_rows_that_depend_on_each_other_are_asked_request_by_request(tmp_path: Path, runtime: Mean):
    answers = asked(tmp_path, is_rowwise=False)
    assert runtime.calls == [2, 3, 2]
    assert answers.rejections == {"the model raised ValueError: unlucky": 1_500}
    assert answers.is_answered.sum() == 7
    assert answers.rows["value"][answers.is_answered].tolist() == [-0.5, 0.5, -1.0, 0.0, 1.0, -1.0, 1.0]


def test_independent_rows_share_calls_except_those_with_other_parameters(tmp_path: Path, runtime: Mean):
    answers = asked(tmp_path, is_rowwise=True)
    assert answers.rejections == {"the model raised ValueError: unlucky": 1}
    assert np.flatnonzero(~answers.is_answered).tolist() == [5]  # r1 begins with 10, after two rows
    assert max(runtime.calls) <= module.CALL_ROWS
    assert sum(runtime.calls) == 1_506
    assert answers.rows["value"].tolist()[-2:] == [-1.0, 1.0]
