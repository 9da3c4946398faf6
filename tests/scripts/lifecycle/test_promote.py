"""`scripts/promote.py`: validated, followed, watched, and put back where it does worse."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from sklearn.datasets import load_wine

from scripts.lifecycle.counters import read_counts
from scripts.lifecycle.guard import MIN_REQUESTS, Counts, Limits, find_worsening
from tests.prepare.sync.test_promotion import two_workers
from tests.support.environment import ROOT, clean_environment, wait_until
from tests.support.models import strict_categories
from tests.support.promotions import NAME, Clients, Registry, nan_outputs, wait_answering
from tests.support.services import Service

LIMITS = Limits(error_increase=0.01, latency_ratio=2)
GOOD = Counts(answered=1000, failed=10, seconds=10)


@pytest.mark.parametrize(
    ("after", "part"),
    [
        (Counts(100, 1, 1), None),
        (Counts(100, 3, 1), "2.9% of 103 requests fail, before 1.0% of 1010"),
        (Counts(0, 100, 0), "100.0% of 100"),
        (Counts(100, 0, 2.1), "takes 21.0 ms, before 10.0 ms"),
        (Counts(100, 0, 1.9), None),
        (Counts(MIN_REQUESTS - 1, 0, 100), None),  # of so few nothing is concluded
        (Counts(), None),
    ],
)
def test_worse_is_more_failures_or_longer_answers(after: Counts, part: str | None):
    found = find_worsening(GOOD, after, LIMITS)
    assert (found is None) if part is None else (part in str(found))


def test_a_few_milliseconds_are_no_worsening():
    fast = Counts(1000, 0, 0.2)
    assert find_worsening(fast, Counts(1000, 0, 4), LIMITS) is None
    assert find_worsening(fast, Counts(1000, 0, 6), LIMITS)


def test_counters_that_began_anew_count_from_zero():
    assert Counts(5, 1, 2).since(Counts(3, 1, 1)) == Counts(2, 0, 1)
    assert Counts(5, 1, 2).since(Counts(900, 30, 50)) == Counts(5, 1, 2)


def test_counts_are_those_of_every_role_but_the_shadow():
    text = """# TYPE model_prediction_latency_seconds histogram
model_prediction_latency_seconds_count{model="m",version="2",role="champion"} 3
model_prediction_latency_seconds_sum{model="m",version="2",role="champion"} 0.5
model_prediction_latency_seconds_count{model="m",version="2",role="shadow"} 100
model_prediction_latency_seconds_count{model="m",version="1",role="champion"} 70
# TYPE model_prediction_errors_total counter
model_prediction_errors_total{model="m",version="2",role="challenger",type="invalid_input"} 4
"""
    assert read_counts(text, "2", "") == Counts(answered=3, failed=4, seconds=0.5)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two good versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.5)


Promote = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def service(versions: Registry, tmp_path: Path) -> Iterator[Service]:
    """Two workers with version 1."""
    versions.promote("1")
    with two_workers(tmp_path, versions, SERVING_CHALLENGER_ALIAS="challenger") as running:
        wait_answering(running, "1")
        yield running


def command_line(registry: Registry, folder: Path, *arguments: str) -> dict[str, Any]:
    return {
        "args": [
            *(sys.executable, "scripts/promote.py", *arguments),
            *("--audit-log", str(folder / "audit.jsonl")),
        ],
        "cwd": ROOT,
        "env": clean_environment() | {"MLFLOW_TRACKING_URI": registry.uri, "SERVING_MODEL_NAME": NAME},
        "text": True,
    }


@pytest.fixture
def promote(versions: Registry, tmp_path: Path) -> Promote:
    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            **command_line(versions, tmp_path, *arguments), capture_output=True, check=False, timeout=300
        )

    return call


def aliases(registry: Registry) -> dict[str, str]:
    model = mlflow.MlflowClient(registry.uri, registry.uri).get_registered_model(NAME)
    return {alias: str(version) for alias, version in model.aliases.items()}


def test_a_version_is_promoted_followed_and_watched(
    service: Service, versions: Registry, promote: Promote, tmp_path: Path
):
    dry = promote("2", "--dry-run")
    assert dry.returncode == 0
    assert "would go from version 1 to 2" in dry.stdout
    assert aliases(versions)["production"] == "1"
    with Clients(service, versions, ("1", "2"), n=2) as clients:
        done = promote("2", "--url", service.url, "--watch", "3", "--why", "better", "--json")
        wait_answering(service, "2")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["from"], told["to"], told["done"]) == ("1", "2", True)
    assert clients.wrong == []
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()
    assert json.loads(line)["why"] == "better"
    again = promote("2", "--url", service.url)
    assert again.returncode == 0
    assert "is version 2 already" in again.stdout


def test_a_version_that_the_service_refuses_is_taken_back(
    service: Service, versions: Registry, promote: Promote
):
    bad = versions.add(nan_outputs)
    with Clients(service, versions, ("1",), n=2) as clients:
        done = promote(bad, "--url", service.url)
    assert done.returncode == 1
    assert "are not finite numbers" in done.stdout
    assert "was put back to version 1" in done.stdout
    assert aliases(versions)["production"] == "1"
    assert clients.wrong == []
    wait_until(
        lambda: service.http.get("/v1/models").json()["stale"] is None, 30, "the service is content again"
    )


def test_a_version_that_fails_its_requests_is_taken_back(
    service: Service, versions: Registry, promote: Promote
):
    """It passes the gate by force, and refuses the rows that callers send."""
    bad = versions.add(strict_categories)
    client = mlflow.MlflowClient(versions.uri, versions.uri)
    client.set_model_version_tag(NAME, bad, "serving.force", "true")
    with Clients(service, versions, ("1",), n=2):
        done = promote(bad, "--url", service.url, "--watch", "60")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "requests fail, before 0.0%" in done.stdout
    assert aliases(versions)["production"] == "1"
    wait_answering(service, "1")


def test_step_by_step_by_way_of_the_challenger(service: Service, versions: Registry, promote: Promote):
    with Clients(service, versions, ("1", "2"), n=2) as clients:
        done = promote("2", "--url", service.url, "--percent", "20,100", "--interval", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "gets 20 % of the requests" in done.stdout
    assert "gets 100 % of the requests" in done.stdout
    assert clients.wrong == []
    assert aliases(versions) == {"production": "2"}
    wait_answering(service, "2")


def test_what_falls_short_is_not_promoted(versions: Registry, promote: Promote, tmp_path: Path):
    versions.promote("1")
    X, y = load_wine(return_X_y=True, as_frame=True)
    data = tmp_path / "shuffled.csv"
    X.assign(kind=np.random.default_rng(0).permutation(y)).to_csv(data, index=False)
    done = promote("2", "--data", str(data), "--target", "kind", "--min", "accuracy=0.9")
    assert done.returncode == 1
    assert "NOT MET" in done.stdout
    assert "stays at version 1" in done.stdout
    assert aliases(versions)["production"] == "1"


def test_ctrl_c_while_it_watches_puts_everything_back(service: Service, versions: Registry, tmp_path: Path):
    process = subprocess.Popen(
        **command_line(versions, tmp_path, "2", "--url", service.url, "--watch", "600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_answering(service, "2")
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == f"promote.py: broken off; {NAME}@production was put back to version 1\n"
    assert aliases(versions)["production"] == "1"
    wait_answering(service, "1")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["9"], "has no version 9"),
        (["2", "--percent", "50,20"], "rising percents"),
        (["2", "--percent", "50,100"], "need --url"),
        (["2", "--watch", "5"], "need --url"),
        (["2", "--data", "x.csv"], "go together"),
        (["2", "--min", "accuracy=0.5"], "need --data and --target"),
        (["2", "--by", "alcohol"], "need --data and --target"),
        (["2", "--url", "http://127.0.0.1:1"], "no service answers at http://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(promote: Promote, arguments: list[str], part: str):
    done = promote(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert part in done.stderr
    assert done.stderr.count("\n") == 1
