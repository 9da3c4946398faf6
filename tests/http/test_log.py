"""What the log of a worker says of the requests that a model refuses."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.http.in_process import Application, running_application

BODY = {"instances": [{"colour": "4111-1111", "size": 1.0}]}


@pytest.fixture(scope="module")
def strict(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """A model that raises on a category that it does not know, with the category in what it says."""
    folder = tmp_path_factory.mktemp("strict")
    with running_application(
        folder, registry_uri, "strict-categories", SERVING_RUNTIME="native"
    ) as application:
        yield application


def test_refused_rows_are_one_line_without_a_value_and_not_one_for_each(
    strict: Application, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "serving"):
        for number in range(20):
            response = strict.post("/v1/predict", json=BODY, headers={"X-Request-ID": f"request-{number}"})
            assert response.json()["error"]["code"] == "model_refused_input"
            assert "4111" not in response.text
    (line,) = [record for record in caplog.records if record.name == "serving.loaded"]
    message = line.getMessage()
    assert message.startswith(
        "strict-categories version 1 raised ValueError on 1 row(s) of request request-0, "
    )
    assert "sklearn/preprocessing/_encoders.py:" in message
    assert line.exc_info is None
    assert "4111" not in caplog.text


def test_a_setting_brings_the_trace_back(registry_uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with (
        running_application(
            tmp_path,
            registry_uri,
            "strict-without-example",
            SERVING_RUNTIME="native",
            SERVING_LOG_TRACES="true",
        ) as application,
        caplog.at_level(logging.INFO, "serving"),
    ):
        assert application.post("/v1/predict", json=BODY).status_code == 422
    (line,) = [record for record in caplog.records if record.name == "serving.loaded"]
    assert line.exc_info is not None
