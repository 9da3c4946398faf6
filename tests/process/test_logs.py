"""`SERVING_LOG_FORMAT=json`: every line of every process is an object."""

import json
from pathlib import Path

from tests.support.environment import wait_until
from tests.support.promotions import NAME, ROWS, Registry, nan_outputs, refused
from tests.support.services import running_service


def test_every_line_of_every_process_is_json(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0)
    bad = registry.add(nan_outputs)
    with running_service(
        tmp_path,
        MLFLOW_TRACKING_URI=registry.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_LOG_FORMAT="json",
        SERVING_MODEL_ALAIS="a typo",
    ) as service:
        service.wait_ready()
        service.predict(ROWS)
        registry.promote(bad)
        wait_until(lambda: bad in refused(service), 60, "it is refused")
        log_file = service._log_file
    lines = [json.loads(line) for line in log_file.read_text().splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    messages = [line["message"] for line in lines]
    assert any("did you mean SERVING_MODEL_ALIAS?" in message for message in messages)
    assert any("are not finite numbers" in message for message in messages)
    assert {line["logger"].partition(".")[0] for line in lines} == {"serving", "bentoml"}
