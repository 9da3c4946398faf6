"""A real Alertmanager with the configuration that ships: posts alerts, and leaves out what follows from others."""

import contextlib
import json
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from tests.compose.configuring import ALERTMANAGER, SLACK_AND_EMAIL, tool
from tests.kubernetes.queries import rules
from tests.support.doubles import Double, Quiet
from tests.support.environment import free_port, wait_until

WEBHOOK = "/run/secrets/alert-webhook"

ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


class Receiver(Double):
    """What the webhook's URL leads to."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.posted: list[dict[str, Any]] = []


class _Handler(Quiet):
    server: Receiver

    def do_POST(self) -> None:
        self.server.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.answer(b"")


@contextlib.contextmanager
def running_alertmanager(
    folder: Path, file: Path = ALERTMANAGER, changed: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """Runs it as compose.yaml does, but that it waits less long for more; returns its URL.

    Args:
        folder: for its files.
        file: its configuration.
        changed: what takes the place of paths and addresses in it.
    """
    text = file.read_text()
    for old, new in {WEBHOOK: "/dev/null", **changed}.items():
        text = text.replace(old, new)
    text, n_waits = re.subn(r"group_wait: \d+s", "group_wait: 1s", text)
    assert n_waits == 2
    (folder / "alertmanager.yaml").write_text(text)
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        tool("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={folder / 'alertmanager.yaml'}",
        f"--storage.path={folder / 'storage'}",
        "--cluster.listen-address=",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/-/ready").status_code == 200
        return False

    try:
        wait_until(is_ready, 30, "Alertmanager is ready")
        yield url
    finally:
        process.terminate()
        process.wait(20)


def fire(url: str, *alerts: str, **labels: str) -> None:
    """Tells it what Prometheus would."""
    told = [
        {
            "labels": {"alertname": name, "severity": ALERTS[name]["labels"]["severity"], **labels},
            "annotations": {
                **ALERTS[name]["annotations"],
                "summary": "what happened",
                "description": "what to do.",
            },
        }
        for name in alerts
    ]
    httpx.post(f"{url}/api/v2/alerts", json=told).raise_for_status()


def states(url: str) -> dict[str, str]:
    """Whether each alert is told (`active`) or not (`suppressed`); `unprocessed` for a moment."""
    found = httpx.get(f"{url}/api/v2/alerts").raise_for_status().json()
    return {one["labels"]["alertname"]: one["status"]["state"] for one in found}


def test_alerts_are_posted_to_the_url_in_the_file(tmp_path: Path) -> None:
    with Receiver().running() as receiver:
        (tmp_path / "url").write_text(f"{receiver.url}/alerts\n")
        with running_alertmanager(tmp_path, changed={WEBHOOK: str(tmp_path / "url")}) as url:
            fire(url, "ModelServerErrors", "ModelRegistryStale", model="churn")
            wait_until(lambda: len(receiver.posted) == 2, 20, "both are posted")
    assert {one["groupLabels"]["alertname"] for one in receiver.posted} == {
        "ModelServerErrors",
        "ModelRegistryStale",
    }


def test_without_a_url_alerts_are_shown(tmp_path: Path) -> None:
    with running_alertmanager(tmp_path) as url:
        fire(url, "ModelServerErrors")
        wait_until(lambda: states(url) == {"ModelServerErrors": "active"}, 20, "it is shown")
        assert httpx.get(f"{url}/").status_code == 200
        wait_until(
            lambda: "unsupported protocol scheme" in (tmp_path / "log").read_text(), 20, "the log says so"
        )


@pytest.mark.parametrize(
    ("cause", "follows"),
    [
        ("ModelServerGone", set(ALERTS) - {"ModelServerGone"}),
        (
            "ModelServerNoneReady",
            {
                "ModelServerNotReady",
                "ModelServerErrors",
                "ModelServerErrorBudgetBurn",
                "ModelServerErrorBudgetLeak",
                "ModelServerSlow",
                "ModelServerLatencyBudgetBurn",
                "ModelServerLatencyBudgetLeak",
                "ModelServerSaturated",
            },
        ),
        (
            "ModelServerSaturated",
            {"ModelServerSlow", "ModelServerLatencyBudgetBurn", "ModelServerLatencyBudgetLeak"},
        ),
        ("ModelServerErrorBudgetBurn", {"ModelServerErrorBudgetLeak"}),
        ("ModelServerLatencyBudgetBurn", {"ModelServerLatencyBudgetLeak"}),
        ("ModelManyFeaturesDrift", {"ModelFeatureDrift"}),
        ("ModelAccuracyDrop", {"ModelEstimatedAccuracyDrop"}),
        ("ModelServerDown", set()),
    ],
)
def test_what_follows_from_another_alert_is_not_told(cause: str, follows: set[str], tmp_path: Path) -> None:
    with running_alertmanager(tmp_path) as url:
        # One after the other, since two causes may be among what is fired.
        others = set(ALERTS) - {cause, *CAUSES} | follows
        fire(url, cause, *others, namespace="a", model_name="churn", model_version="1")
        expected = {name: "suppressed" if name in follows else "active" for name in {cause, *others}}
        wait_until(lambda: states(url) == expected, 20, f"{expected}")


CAUSES = {
    "ModelServerGone",
    "ModelServerNoneReady",
    "ModelServerSaturated",
    "ModelServerErrorBudgetBurn",
    "ModelServerLatencyBudgetBurn",
    "ModelManyFeaturesDrift",
    "ModelAccuracyDrop",
}


class Mail(socketserver.StreamRequestHandler):
    """Takes a message as a mail server does. Source: RFC 5321."""

    def handle(self) -> None:
        """Keeps it."""
        self.wfile.write(b"220 ready\r\n")
        while line := self.rfile.readline():
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                self.server.messages.append(b"".join(iter(self.rfile.readline, b".\r\n")).decode())  # type: ignore[attr-defined]
            self.wfile.write(b"250 ok\r\n")


def told(receiver: Receiver) -> list[tuple[str, str]]:
    """Channel and title of each message to Slack."""
    return [(post["channel"], post["attachments"][0]["title"]) for post in receiver.posted]


def test_slack_and_mail_are_told_what_to_do(tmp_path: Path) -> None:
    mail = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mail)
    mail.daemon_threads, messages = True, []
    mail.messages = messages  # type: ignore[attr-defined]
    thread = threading.Thread(target=mail.serve_forever, args=(0.01,))
    thread.start()
    try:
        with Receiver().running() as receiver:
            (tmp_path / "slack").write_text(f"{receiver.url}/services/T0/B0")
            changed = {
                "/run/secrets/slack-webhook": str(tmp_path / "slack"),
                "smtp.example.com:587": f"127.0.0.1:{mail.server_address[1]}\n  smtp_require_tls: false",
                "  smtp_auth_username: alerts@example.com\n": "",
                "  smtp_auth_password_file: /run/secrets/smtp-password\n": "",
            }
            with running_alertmanager(tmp_path, SLACK_AND_EMAIL, changed) as url:
                fire(url, "ModelServerGone", namespace="prod")
                wait_until(lambda: receiver.posted and messages, 20, "both are told")
                fire(url, "ModelManyFeaturesDrift", namespace="shop", model_name="churn")
                owners = [("#model-owners", "ModelManyFeaturesDrift in shop")]
                wait_until(
                    lambda: set(owners) <= set(told(receiver)), 60, "the model's owners are told of drift"
                )
    finally:
        mail.shutdown()
        thread.join()
        mail.server_close()
    (attachment,) = receiver.posted[0]["attachments"]
    assert receiver.posted[0]["channel"] == "#model-serving"
    assert attachment["title"] == "ModelServerGone in prod"
    assert attachment["text"].strip().endswith("what to do. Runbook: docs/runbook.md#modelservergone")
    assert ("#model-serving", "ModelManyFeaturesDrift in shop") in told(receiver)
    assert "To: on-call@example.com" in messages[0]
    assert "ModelServerGone" in messages[0]


def test_another_environment_is_told_all_the_same(tmp_path: Path) -> None:
    with running_alertmanager(tmp_path) as url:
        fire(url, "ModelServerGone", namespace="staging")
        fire(url, "ModelServerSlow", namespace="production")
        wait_until(
            lambda: states(url) == {"ModelServerGone": "active", "ModelServerSlow": "active"},
            20,
            "both are told",
        )
