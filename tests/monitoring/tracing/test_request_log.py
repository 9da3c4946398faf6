"""Which requests are logged, and with what."""

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from serving.monitoring.tracing.request_log import MAX_LINES_PER_SECOND, RequestLog
from serving.monitoring.tracing.timeline import Timeline
from serving.process.logs import JsonFormatter, TextFormatter
from tests.http.in_process import Application, running_application
from tests.monitoring.tracing.test_context import SPAN, TRACE

ROWS = [{"colour": "4111-1111", "size": 1.0}]
"""The model raises on this category."""


def ended(status: int, seconds: float) -> Timeline:
    timeline = Timeline("request-1", "POST", "/v1/predict")
    timeline.status, timeline.ended = status, timeline.started + seconds
    return timeline


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [
        msgspec.json.decode(JsonFormatter().format(record))
        for record in caplog.records
        if record.name == "serving.requests"
    ]


@pytest.mark.parametrize(
    ("status", "seconds", "message"),
    [
        (200, 0.1, None),
        (422, 0.1, None),
        (499, 0.1, None),
        (200, 0.6, "slow request"),
        (422, 0.6, "slow request"),
        (503, 0.0, "request failed"),
        (500, 0.6, "request failed"),
    ],
)
def test_slow_and_failed_requests_are_logged(
    status: int, seconds: float, message: str | None, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "serving.requests"):
        RequestLog(0.5, 0).end(ended(status, seconds))
    assert [line["message"] for line in lines(caplog)] == ([message] if message else [])


def test_a_share_of_the_others_is_logged(caplog: pytest.LogCaptureFixture):
    log = RequestLog(0.5, 25)
    with caplog.at_level(logging.INFO, "serving.requests"):
        for _ in range(1000):
            log.end(ended(200, 0.1))
    assert 180 < len(lines(caplog)) < 320  # five standard deviations


def test_an_outage_does_not_fill_the_log_and_is_counted(caplog: pytest.LogCaptureFixture):
    now = [7.0]
    log = RequestLog(0.5, 0, lambda: now[0])
    with caplog.at_level(logging.INFO, "serving.requests"):
        for _ in range(MAX_LINES_PER_SECOND + 50):
            log.end(ended(503, 0.0))
        assert len(lines(caplog)) == MAX_LINES_PER_SECOND
        now[0] = 8.0
        log.end(ended(503, 0.0))
        log.end(ended(503, 0.0))
    *_, first, second = lines(caplog)
    assert first["left_out"] == 50
    assert "left_out" not in second


def test_a_line_of_text_has_the_same_fields(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "serving.requests"):
        RequestLog(0.5, 0).end(ended(504, 0.625))
    (line,) = [TextFormatter().format(record) for record in caplog.records]
    assert "[WARNING] [serving.requests] request failed request_id=request-1 method=POST " in line
    assert " status=504 body_bytes=0 duration_ms=625.0" in line


@pytest.fixture(scope="module")
def strict(registry_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    folder = tmp_path_factory.mktemp("strict")
    with running_application(
        folder, registry_uri, "strict-categories", SERVING_LOG_REQUESTS_PERCENT="100"
    ) as application:
        yield application


def test_an_answered_request_has_the_time_of_each_stage(
    strict: Application, caplog: pytest.LogCaptureFixture
):
    rows = [{"colour": "red", "size": 1.0}, {"colour": "red", "size": 2.0}]
    with caplog.at_level(logging.INFO, "serving.requests"):
        response = strict.post(
            "/v1/predict",
            json={"instances": rows},
            headers={"X-Request-ID": "mine", "traceparent": f"00-{TRACE}-{SPAN}-01"},
        )
    (line,) = lines(caplog)
    stages = [line.pop(f"{name}_ms") for name in ("decode", "queue", "model", "encode")]
    assert all(stage >= 0 for stage in stages)
    assert sum(stages) <= line.pop("duration_ms")
    del line["time"]
    assert line == {
        "level": "info",
        "logger": "serving.requests",
        "message": "request",
        "request_id": "mine",
        "trace_id": TRACE,
        "method": "POST",
        "path": "/v1/predict",
        "status": 200,
        "model_name": "strict-categories",
        "model_version": "1",
        "role": "champion",
        "rows": 2,
        "body_bytes": len(response.request.content),
    }
    # Without tracing, the caller's own span.
    assert response.headers["traceparent"] == f"00-{TRACE}-{SPAN}-01"


def test_two_traces_are_none(strict: Application):
    headers = [("traceparent", f"00-{TRACE}-{SPAN}-01"), ("traceparent", f"00-{TRACE}-{SPAN}-00")]
    response = strict.post(
        "/v1/predict", json={"instances": [{"colour": "red", "size": 1.0}]}, headers=headers
    )
    assert response.status_code == 200
    assert "traceparent" not in response.headers


def test_a_refused_one_ends_in_its_stage_and_shows_no_value(
    strict: Application, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO):
        assert strict.post("/v1/predict", json={"instances": ROWS}).status_code == 422
        assert strict.post("/v1/predict", content=b"4111-1111").status_code == 400
    by_model, by_decoder = lines(caplog)
    assert by_model["error_type"] == "model_refused_input"
    assert by_model["model_version"] == "1"
    assert "model_ms" in by_model
    assert "encode_ms" not in by_model
    assert by_decoder["status"] == 400
    assert "decode_ms" in by_decoder
    assert "queue_ms" not in by_decoder
    assert "trace_id" not in by_decoder
    assert "4111" not in str(lines(caplog))
