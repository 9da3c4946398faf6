"""The truth loop of a real service: over restarts, kills, a lost database, and several replicas."""

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from tests.monitoring.feedback.conftest import postgresql  # noqa: F401  # a fixture
from tests.support.environment import wait_until
from tests.support.models import frame
from tests.support.postgresql import PostgreSQL
from tests.support.processes import child_processes
from tests.support.promotions import NAME, Registry
from tests.support.services import Service, running_service

KEEPER = "serving.monitoring.feedback"
RECORDS = frame("wine").to_dict("records")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(tmp_path_factory.mktemp("registry"), 0.01)


def settings(registry: Registry, folder: Path, store: str = "sqlite") -> dict[str, str]:
    return {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "SERVING_LOG_PREDICTIONS": str(folder),
        "SERVING_FEEDBACK_STORE": store,
        "SERVING_QUALITY_SECONDS": "1",
        "SERVING_WORKERS": "2",
        "SERVING_ALLOW_PICKLE": "false",  # in the sandbox
    }


def ask(
    service: Service, request_id: str, first: int = 0, n_rows: int = 1, **headers: str
) -> list[dict[str, Any]]:
    answer = service.http.post(
        "/v1/predict",
        json={"instances": RECORDS[first : first + n_rows]},
        headers={"x-request-id": request_id, **headers},
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["predictions"])


def tell(service: Service, *entries: dict[str, Any]) -> dict[str, Any]:
    answer = service.http.post("/v1/feedback", json={"feedback": entries})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def tell_until_matched(service: Service, *entries: dict[str, Any]) -> dict[str, Any]:
    """Repeats feedback until the answers have reached the store, which they do within seconds."""
    return dict(
        wait_until(
            lambda: found if not (found := tell(service, *entries))["unknown"] else None, 20, "all are known"
        )
    )


def champion(service: Service) -> dict[str, Any]:
    """The champion's entry of the last day; empty before the first evaluation."""
    answer = service.http.get("/v1/quality")
    if answer.status_code == 503:
        assert answer.json()["error"]["code"] == "feedback_unavailable"
        return {}
    (day,) = (one for one in answer.json()["windows"] if one["window"] == "1d")
    return next((one for one in day["versions"] if one["role"] == "champion"), {})


def wait_labels(service: Service, n_labels: int) -> dict[str, Any]:
    return dict(
        wait_until(
            lambda: of if (of := champion(service)).get("labels") == n_labels else None,
            30,
            f"{n_labels} labels are evaluated",
        )
    )


def test_truths_of_a_real_service_are_evaluated_and_survive(registry: Registry, tmp_path: Path):
    folder = tmp_path / "log"
    truths: list[str] = []
    scores: list[list[float]] = []
    with running_service(tmp_path / "service", **settings(registry, folder)) as service:
        service.wait_ready()
        for first in range(0, 150, 3):
            said = ask(service, f"request-{first}", first, 3, **{"x-routing-key": f"key-{first}"})
            scores += [list(one["probabilities"].values()) for one in said]
        classes = list(said[0]["probabilities"])
        truths = [classes[int(np.argmax(row)) if i % 5 else i % 3] for i, row in enumerate(scores)]
        entries = [
            {"request_id": f"request-{first}", "truths": truths[first : first + 3]}
            for first in range(0, 147, 3)
        ]
        assert tell_until_matched(service, *entries)["matched"] == 147
        # Again, and in another order, with a wrong truth first.
        tell(service, {"request_id": "request-0", "row": 1, "truth": "wrong"}, *entries[::-1])
        of = wait_labels(service, 147)
        labels = [classes[int(np.argmax(row))] for row in scores[:147]]
        assert of["metrics"]["accuracy"] == pytest.approx(metrics.accuracy_score(truths[:147], labels))
        assert of["metrics"]["log_loss"] == pytest.approx(
            metrics.log_loss(truths[:147], scores[:147], labels=classes)
        )
        # By key: the last request's three rows.
        assert tell(service, {"key": "key-147", "truth": truths[147]})["matched"] == 1
        wait_labels(service, 150)
        text = service.http.get("/metrics").text
        assert (
            f'model_labels{{model_name="{NAME}",model_version="1",role="champion",window="1d"}} 150.0' in text
        )
        assert "model_feedback_failing 0.0" in text
        # A killed keeper is back, and has lost nothing.
        (keeper,) = child_processes(service.process.pid, KEEPER)
        os.kill(keeper, signal.SIGKILL)
        wait_until(
            lambda: service.http.post("/v1/feedback", json={"feedback": []}).status_code == 200,
            30,
            "it is back",
        )
        ask(service, "after-the-kill")
        tell_until_matched(service, {"request_id": "after-the-kill", "truth": classes[0]})
        ask(service, "at-the-end")
    with running_service(tmp_path / "service", **settings(registry, folder)) as service:
        service.wait_ready()
        wait_labels(service, 151)
        assert tell_until_matched(service, {"request_id": "at-the-end", "truth": classes[0]})["matched"] == 1
        wait_labels(service, 152)
    assert "Traceback" not in service.log


def test_a_large_body_holds_up_nobody(registry: Registry, tmp_path: Path):
    with running_service(tmp_path / "service", **settings(registry, tmp_path / "log")) as service:
        service.wait_ready()
        body = json.dumps(
            {"feedback": [{"request_id": f"{i:036}", "truth": "yes"} for i in range(140_000)]}
        ).encode()
        assert len(body) > 9_000_000
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(service.http.post, "/v1/feedback", content=body, timeout=60)
            n_answers = 0
            while not sent.done():
                ask(service, "")
                n_answers += 1
        assert n_answers > 20
        assert sent.result().json()["unknown"] == 140_000
        again = service.http.post("/v1/feedback", content=body, timeout=60).json()
        assert (again["received"], again["matched"]) == (140_000, 0)
        wait_until(
            lambda: (
                service.http.get("/v1/quality").json()["feedback"] == {"truths": 140_000, "unknown": 140_000}
            ),
            30,
            "they are counted once",
        )


@pytest.fixture
def server(postgresql: PostgreSQL) -> Iterator[PostgreSQL]:  # noqa: F811  # the fixture
    yield postgresql
    postgresql.stop()
    postgresql.start()


def test_replicas_share_a_database_and_outlive_it(registry: Registry, tmp_path: Path, server: PostgreSQL):
    with (
        running_service(tmp_path / "a", **settings(registry, tmp_path / "log-a", server.url)) as first,
        running_service(tmp_path / "b", **settings(registry, tmp_path / "log-b", server.url)) as second,
    ):
        first.wait_ready()
        second.wait_ready()
        (label,) = (one["label"] for one in ask(first, "asked-of-the-first"))
        assert (
            tell_until_matched(second, {"request_id": "asked-of-the-first", "truth": label})["matched"] == 1
        )
        for service in (first, second):
            assert wait_labels(service, 1)["metrics"]["accuracy"] == 1
        for worker in child_processes(first.process.pid, "_bentoml_impl.worker.service"):
            assert b"secret" not in Path(f"/proc/{worker}/environ").read_bytes()
        server.stop()
        answer = first.http.post("/v1/feedback", json={"feedback": [{"request_id": "x", "truth": label}]})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "feedback_unavailable")
        assert answer.headers["retry-after"]
        ask(first, "without-the-database")
        wait_until(lambda: "model_feedback_failing 1.0" in first.http.get("/metrics").text, 30, "it is told")
        server.start()
        tell_all = lambda: first.http.post(  # noqa: E731  # once
            "/v1/feedback", json={"feedback": [{"request_id": "without-the-database", "truth": label}]}
        )
        wait_until(
            lambda: (a := tell_all()).status_code == 200 and a.json()["matched"] == 1, 60, "it goes on"
        )
        wait_labels(second, 2)
    for service in (first, second):
        assert "secret" not in service.log
        assert "Traceback" not in service.log


def test_off_by_default(registry: Registry, tmp_path: Path):
    folder = tmp_path / "log"
    off = {name: value for name, value in settings(registry, folder).items() if "FEEDBACK" not in name}
    with running_service(tmp_path / "service", **off) as service:
        service.wait_ready()
        assert not child_processes(service.process.pid, KEEPER)
        for answer in (service.http.get("/v1/quality"), service.http.post("/v1/feedback", json={})):
            assert answer.status_code == 404
            assert "SERVING_FEEDBACK_STORE" in answer.json()["error"]["message"]
        assert not (folder / ".feedback.db").exists()


def test_a_full_or_lost_folder_is_told(registry: Registry, tmp_path: Path):
    folder = tmp_path / "log"
    with running_service(tmp_path / "service", **settings(registry, folder)) as service:
        service.wait_ready()
        ask(service, "before")
        tell_until_matched(service, {"request_id": "before", "truth": "x"})
        with sqlite3.connect(folder / ".feedback.db") as connection:
            connection.execute("DROP TABLE serving_truths")
        answer = service.http.post(
            "/v1/feedback", json={"feedback": [{"request_id": "before", "truth": "x"}]}
        )
        assert answer.status_code == 503
        assert "no such table" in service.log
        wait_until(
            lambda: (
                service.http.post(
                    "/v1/feedback", json={"feedback": [{"request_id": "before", "truth": "x"}]}
                ).status_code
                == 200
            ),
            30,
            "it is made again",
        )
