"""What is sent again and when, in how many requests rows go, and what is said of answers that are no predictions."""

import asyncio
import email.utils
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from serving import client as package
from serving.client import (
    AsyncClient,
    Client,
    ClientError,
    InvalidInput,
    Refused,
    TimedOut,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    VersionChanged,
)
from serving.client.exchange import Answer, Failure, pause_seconds

Answers = Iterator[httpx.Response | Exception]
ROW = [{"a": 1}]


def predictions(n_rows: int = 1, version: str = "1") -> httpx.Response:
    said = {"model": {"name": "m", "version": version}, "predictions": [{"value": 1.5}] * n_rows}
    return httpx.Response(200, json={**said, "request_id": "id"}, headers={"x-model-version": version})


def error(status: int, code: str, message: str = "no", **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": message, "details": []}, "request_id": "id"}
    return httpx.Response(status, json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})


class Script:
    """Answers one after the other, and remembers what was asked."""

    def __init__(self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]):
        self._answers = list(answers)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        said = answer if isinstance(answer, httpx.Response) else answer(request)
        # What is read once cannot be read again, by another client.
        has_content = isinstance(said.stream, httpx.ByteStream)
        return (
            httpx.Response(said.status_code, headers=said.headers, content=said.content)
            if has_content
            else said
        )


def sync_predict(script: Script, rows: Any, **options: Any) -> Any:
    with Client("http://u:hunter2@worker/churn", transport=httpx.MockTransport(script), **options) as client:
        return client.predict(rows)


def async_predict(script: Script, rows: Any, **options: Any) -> Any:
    async def ask() -> Any:
        transport = httpx.MockTransport(script)
        async with AsyncClient("http://u:hunter2@worker/churn", transport=transport, **options) as client:
            return await client.predict(rows)

    return asyncio.run(ask())


@pytest.fixture(params=[sync_predict, async_predict], ids=["sync", "async"])
def predict(request: pytest.FixtureRequest) -> Any:
    return request.param


BUSY = error(503, "queue_full", retry_after="0")

AGAIN = {
    "503": BUSY,
    "429 of a gateway": httpx.Response(429, text="slow down", headers={"retry-after": "0"}),
    "refused": httpx.ConnectError("refused"),
    "closed unanswered": httpx.RemoteProtocolError("Server disconnected without sending a response."),
    "reset": httpx.ReadError("reset"),
}


@pytest.mark.parametrize("first", AGAIN.values(), ids=AGAIN)
def test_what_may_pass_is_sent_again(predict: Any, first: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.exchange.BACKOFF_SECONDS", 0.001)
    script = Script(first, predictions())
    assert predict(script, ROW) == [{"value": 1.5}]
    assert [request.content for request in script.asked] == [b'{"instances":[{"a":1}]}'] * 2
    assert {request.url.path for request in script.asked} == {"/churn/v1/predict"}


@pytest.mark.parametrize("first", AGAIN.values(), ids=AGAIN)
def test_it_ends_with_the_last_answer(predict: Any, first: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.exchange.BACKOFF_SECONDS", 0.001)
    script = Script(first)
    with pytest.raises((Unavailable, Unreachable)):
        predict(script, ROW, retries=2)
    assert len(script.asked) == 3


class Broken(httpx.SyncByteStream, httpx.AsyncByteStream):
    """An answer that breaks in the middle."""

    def __iter__(self) -> Iterator[bytes]:
        yield b'{"predictions": ['
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> Any:
        for part in self:
            yield part


FINAL = {
    "a request that fails again": (error(415, "unsupported_media_type"), Refused),
    "rows": (error(422, "invalid_input"), InvalidInput),
    "a login": (httpx.Response(401, text="who?"), Refused),
    "too late": (error(504, "timed_out"), TimedOut),
    "a mistake": (error(500, "internal_error"), Unavailable),
    "one row too large": (error(413, "payload_too_large"), Refused),
    "no answer in time": (httpx.ReadTimeout(""), TimedOut),
    "a wait beyond the deadline": (error(503, "model_not_ready", retry_after="61"), Unavailable),
}


@pytest.mark.parametrize(("answer", "kind"), FINAL.values(), ids=FINAL)
def test_what_will_not_pass_is_sent_once(predict: Any, answer: Any, kind: type[ClientError]) -> None:
    script = Script(answer)
    with pytest.raises(kind) as caught:
        predict(script, ROW)
    assert type(caught.value) is kind
    assert caught.value.status == getattr(answer, "status_code", None)
    assert len(script.asked) == 1


def test_an_answer_that_breaks_off_is_not_asked_for_again(predict: Any) -> None:
    script = Script(httpx.Response(200, stream=Broken()))
    with pytest.raises(
        Unreachable, match=r"http://worker/churn/v1/predict: the connection broke \(ReadError\)"
    ):
        predict(script, ROW)
    assert len(script.asked) == 1


def answer_of(status: int, **headers: str) -> Answer:
    return Answer(status, httpx.Headers(headers), b"")


def test_retry_after_is_kept_to_and_pauses_grow_without_it() -> None:
    for n_retries in range(3):
        pause = pause_seconds(answer_of(503, **{"retry-after": "7"}), n_retries)
        assert pause is not None
        assert 7 <= pause <= 7.7
    in_9_seconds = email.utils.formatdate(time.time() + 9, usegmt=True)
    pause = pause_seconds(answer_of(429, **{"retry-after": in_9_seconds}), 0)
    assert pause is not None
    assert 7 <= pause <= 10
    for said in ({}, {"retry-after": "soon"}, {"retry-after": "-1"}):
        pauses = [pause_seconds(answer_of(503, **said), n_retries) for n_retries in range(3)]
        assert all(0.25 * 2**n <= pause <= 0.375 * 2**n for n, pause in enumerate(pauses) if pause)
        assert None not in pauses
    assert pause_seconds(Failure(httpx.ReadError(""), has_answered=True), 0) is None
    assert pause_seconds(answer_of(504, **{"retry-after": "1"}), 0) is None


def test_the_service_is_told_how_long_it_may_take(predict: Any) -> None:
    script = Script(predictions())
    predict(script, ROW, timeout_seconds=2.5)
    (request,) = script.asked
    assert 2 < float(request.headers["x-request-timeout"]) <= 2.5
    assert request.extensions["timeout"]["read"] == pytest.approx(3.5, abs=0.5)


class Dripping(Broken):
    """An answer of one byte at a time, for ever."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            time.sleep(0.05)
            yield b" "


def test_an_answer_that_drips_ends_at_the_deadline(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.exchange.GRACE_SECONDS", 0)
    with pytest.raises(TimedOut, match=r"no answer within timeout_seconds=0\.2"):
        predict(Script(httpx.Response(200, stream=Dripping())), ROW, timeout_seconds=0.2)


def n_rows_of(request: httpx.Request) -> int:
    return len(json.loads(request.content)["instances"])


def test_many_rows_go_in_several_requests_to_one_version(predict: Any) -> None:
    script = Script(lambda request: predictions(n_rows_of(request)))
    index = pd.RangeIndex(100, 25_100)
    answer = predict(script, pd.DataFrame({"a": np.arange(25_000)}, index=index))
    assert answer.index.equals(index)
    assert [n_rows_of(request) for request in script.asked] == [10_000, 10_000, 5_000]
    assert json.loads(script.asked[2].content)["instances"][-1] == {"a": 24_999}
    (key,) = {request.headers["x-routing-key"] for request in script.asked}
    assert len(key) == 32
    predict(script, ROW)
    assert "x-routing-key" not in script.asked[-1].headers
    predict(script, [{"a": 1}] * 10_001, headers={"X-Routing-Key": "mine"})
    assert script.asked[-1].headers.get_list("x-routing-key") == ["mine"]


def test_wide_rows_go_in_smaller_requests(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.bodies.CHUNK_CELLS", 1000)
    script = Script(lambda request: predictions(n_rows_of(request)))
    predict(script, np.zeros((25, 10, 10)))
    assert [n_rows_of(request) for request in script.asked] == [10, 10, 5]


def test_what_is_too_large_is_halved(predict: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        n_rows = n_rows_of(request)
        return predictions(n_rows) if n_rows <= 3 else error(413, "payload_too_large")

    script = Script(answer)
    assert len(predict(script, [{"a": n} for n in range(10)])) == 10
    assert [n_rows_of(request) for request in script.asked] == [10, 5, 3, 3, 3, 1]


def test_rows_are_counted_through_all_requests(predict: Any) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if script.asked[1:]:
            detail = {"expected": "double", "got": "string", "row": 7, "column": "row 3"}
            message = "the input does not fit: row 7 column 'row 3': expected double, got string"
            body = {"code": "invalid_input", "message": message, "details": [detail]}
            return httpx.Response(422, json={"error": body, "request_id": "id"})
        return predictions(n_rows_of(request))

    script = Script(answer)
    frame = pd.DataFrame({"row 3": range(10_010)}, index=[f"customer {n}" for n in range(10_010)])
    with pytest.raises(InvalidInput, match="row 10007 column 'row 3': expected double, got string") as caught:
        predict(script, frame)
    (detail,) = caught.value.details
    assert (detail.row, detail.column, detail.index) == (10_007, "row 3", "customer 10007")
    assert "customer" not in str(caught.value)
    refused = Script(
        lambda _: predictions(10_000) if not refused.asked[1:] else error(422, "model_refused_input")
    )
    with pytest.raises(InvalidInput, match=r"no \(rows 10000 to 10009\) \(request id\)"):
        predict(refused, frame)


def test_a_series_in_the_place_of_a_frame_is_told(predict: Any) -> None:
    def refusal(column: str | None) -> Script:
        detail = {"expected": "object with the columns as keys", "got": "integer", "row": 0, "column": column}
        body = {"code": "invalid_input", "message": "row 0: expected object", "details": [detail]}
        return Script(httpx.Response(422, json={"error": body, "request_id": "id"}))

    frame = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    for series in (frame.iloc[0], frame["a"], pd.Series(["one", "two"])):
        with pytest.raises(InvalidInput, match=r"a Series has one value per row: .* frame\.iloc\[\[n\]\]"):
            predict(refusal(None), series)
    for script, rows in ((refusal("text"), frame["a"]), (refusal(None), frame)):
        with pytest.raises(InvalidInput) as caught:
            predict(script, rows)
        assert "Series" not in str(caught.value)


def test_two_versions_do_not_answer_one_call(predict: Any) -> None:
    script = Script(predictions(10_000, "3"), predictions(1, "4"))
    with pytest.raises(
        VersionChanged, match="version 3 answered the first 10000 rows, and version 4 the next"
    ):
        predict(script, [{"a": 1}] * 10_001)


def test_a_model_that_answers_other_rows_is_not_cut(predict: Any) -> None:
    frame = pd.DataFrame({"a": range(10_001)})
    assert len(predict(Script(predictions(12)), frame.head(1))) == 12
    with pytest.raises(UnexpectedAnswer, match="expected 10000 predictions, one per row, got 12"):
        predict(Script(predictions(12)), frame)


STRANGE = {
    "a proxy": (
        httpx.Response(502, html="<h1>Bad Gateway</h1>\n"),
        Unavailable,
        "status 502 with text/html; a proxy",
    ),
    "a portal": (
        httpx.Response(200, html="<h1>Log in</h1>"),
        UnexpectedAnswer,
        "got status 200 with text/html",
    ),
    "other JSON": (httpx.Response(200, json=[]), UnexpectedAnswer, "predictions .* got status 200"),
    "other rows": (httpx.Response(200, json={"predictions": [5]}), UnexpectedAnswer, "got status 200"),
    "no type": (httpx.Response(503), Unavailable, "status 503 with no media type"),
    "moved": (
        httpx.Response(301, headers={"location": "https://u:hunter2@worker/"}),
        UnexpectedAnswer,
        "got status 301 .*redirects are not followed",
    ),
    "half an error": (httpx.Response(404, json={"error": "no"}), Refused, "status 404 with application/json"),
}


@pytest.mark.parametrize(("answer", "kind", "message"), STRANGE.values(), ids=STRANGE)
def test_answers_of_others_are_told_in_one_line(predict: Any, answer: Any, kind: Any, message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        predict(Script(answer), ROW, retries=0)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert caught.value.code is None


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.LocalProtocolError("hunter2")])
def test_no_credentials_are_told(predict: Any, failure: Exception) -> None:
    with pytest.raises(Unreachable, match="http://worker/churn/v1/predict: ") as caught:
        predict(Script(failure), ROW, retries=0)
    assert "hunter2" not in str(caught.value)


def test_headers_and_login_are_sent(predict: Any) -> None:
    script = Script(predictions())
    predict(script, ROW, headers={"X-Api-Key": "k"})
    assert script.asked[0].headers["x-api-key"] == "k"
    assert script.asked[0].headers["authorization"].startswith("Basic ")


MISTAKES = {
    "no scheme": ({"url": "localhost:3000"}, "url: expected http://HOST:PORT"),
    "a bad port": ({"url": "http://u:hunter2@h:port"}, "url: expected http://HOST:PORT"),
    "no host": ({"url": "http://"}, "url: expected http://HOST:PORT"),
    "no url": ({"url": None}, "url: expected http://HOST:PORT"),
    "no time": ({"timeout_seconds": 0}, "timeout_seconds: expected a number above 0, got 0"),
    "no tries": ({"retries": -1}, "retries: expected 0 or more, got -1"),
    "a line end": ({"headers": {"Authorization": "Bearer hunter2\n"}}, "headers: .* as Authorization"),
}


@pytest.mark.parametrize(("given", "message"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_mistake_is_named_by_its_argument(kind: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        kind(**{"url": "http://worker", **given})
    assert "hunter2" not in str(caught.value)


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    drawn = {name for name in package.errors.__doc__.split() if name[0].isupper() and hasattr(package, name)}
    kinds = {
        one for one in vars(package.errors).values() if isinstance(one, type) and issubclass(one, ClientError)
    }
    assert drawn == {kind.__name__ for kind in kinds}
    assert kinds | {Client, AsyncClient, package.Detail} == {
        getattr(package, name) for name in package.__all__
    }
