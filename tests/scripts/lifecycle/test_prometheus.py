"""`scripts/promote.py --prometheus`: judged by what a real Prometheus has scraped."""

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mlflow
import pytest

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.guard import Counts
from scripts.lifecycle.prometheus import PrometheusCounts, increase
from tests.prepare.sync.test_promotion import two_workers
from tests.scripts.lifecycle.test_promote import aliases, command_line
from tests.support.environment import free_port
from tests.support.fake_service import FakeService
from tests.support.models import strict_categories
from tests.support.prometheus import Pod, Prometheus, running_prometheus
from tests.support.promotions import NAME, Clients, Registry, wait_answering
from tests.support.services import Service


@pytest.mark.parametrize(
    ("samples", "expected", "resets"),
    [
        ([(8, 3), (9, 5), (11, 7), (12, 9)], 4, 0),  # from the last sample before the start
        ([(11, 7), (12, 9)], 9, 0),  # began after the start, at zero
        ([(9, 5), (11, 7), (12, 2), (13, 3)], 2 + 2 + 1, 1),  # began anew
        ([(9, 5), (11, 1)], 1, 1),  # the same, between the start and the first look
        ([(7, 5), (8, 3), (9, 5)], 0, 0),  # gone before the start
        ([], 0, 0),
    ],
)
def test_a_counter_grows_from_the_start_on(samples: list[tuple[float, float]], expected: float, resets: int):
    assert increase(samples, start=10) == (expected, resets)


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    """Two that run, and one that does not yet."""
    made = [Pod(), Pod(), Pod()]
    for pod in made[:2]:
        pod.start()
    yield made
    for pod in made:
        pod.stop()


@pytest.fixture
def prometheus(pods: list[Pod], tmp_path: Path) -> Iterator[Prometheus]:
    with running_prometheus(tmp_path / "prometheus", *(pod.address for pod in pods)) as running:
        yield running


ANSWERED = 'sum(model_prediction_latency_seconds_count{version="2",role="champion"})'


def test_pods_that_come_go_and_begin_anew_are_added_up(pods: list[Pod], prometheus: Prometheus):
    leaves, restarts, comes = pods
    leaves.show("2", answered=100, seconds=10, failed=5)
    restarts.show("2", answered=40, seconds=4)
    prometheus.wait_value(ANSWERED, 140)
    since = PrometheusCounts(prometheus.url, NAME).follow("2")
    leaves.show("2", answered=130, seconds=16, failed=6)  # 30 more, 6 s, 1 failed
    restarts.show("2", answered=60, seconds=5, failed=3)  # 20 more, 1 s, and the first 3 failed ones
    prometheus.wait_value(ANSWERED, 190)
    leaves.stop()
    restarts.show("2", answered=7, seconds=2, failed=0)  # 7 more, 2 s
    comes.show("2", answered=11, seconds=1, failed=2)  # 11 more, 1 s, 2 failed
    comes.start()
    prometheus.wait_value(ANSWERED, 18)
    assert since() == Counts(answered=30 + 20 + 7 + 11, failed=1 + 3 + 2, seconds=6 + 1 + 2 + 1)


def test_the_past_is_what_a_version_was_asked(pods: list[Pod], prometheus: Prometheus):
    pods[0].show("1", answered=70, seconds=7, failed=2)
    pods[0].show("2", answered=9)
    prometheus.wait_value(ANSWERED, 9)
    assert PrometheusCounts(prometheus.url, NAME).past("1") == Counts(70, 2, 7)


def test_another_model_and_labels_that_do_not_match_are_not_counted(pods: list[Pod], prometheus: Prometheus):
    pods[0].show("2", answered=9)
    prometheus.wait_value(ANSWERED, 9)
    assert PrometheusCounts(prometheus.url, NAME, 'env="prod"').past("2").answered == 9
    with pytest.raises(LifecycleError, match="it scrapes no service with this model"):
        PrometheusCounts(prometheus.url, NAME, 'env="test"').past("2")
    with pytest.raises(LifecycleError, match="it scrapes no service with this model"):
        PrometheusCounts(prometheus.url, "beer").past("2")


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two good versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.5)


@pytest.fixture
def service(versions: Registry, tmp_path: Path) -> Iterator[Service]:
    """Two workers with version 1."""
    versions.promote("1")
    with two_workers(tmp_path, versions, SERVING_CHALLENGER_ALIAS="challenger") as running:
        wait_answering(running, "1")
        yield running


@pytest.fixture
def watching(service: Service, tmp_path: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the service."""
    with running_prometheus(tmp_path / "prometheus", service.url.removeprefix("http://")) as running:
        running.wait_value(f'count(model_info{{model="{NAME}"}})', 1)
        yield running


Promote = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def promote(versions: Registry, tmp_path: Path) -> Promote:
    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            **command_line(versions, tmp_path, *arguments), capture_output=True, timeout=300
        )

    return call


def test_a_good_version_is_promoted_step_by_step(
    service: Service, watching: Prometheus, versions: Registry, promote: Promote
):
    with Clients(service, versions, ("1", "2"), n=2) as clients:
        steps = ("--percent", "50,100", "--interval", "6", "--watch", "6")
        done = promote("2", "--url", service.url, *steps, "--prometheus", watching.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "too few to say" not in done.stdout
    assert clients.wrong == []
    assert aliases(versions) == {"production": "2"}


def test_a_version_that_fails_its_requests_is_taken_back(
    service: Service, watching: Prometheus, versions: Registry, promote: Promote
):
    bad = versions.add(strict_categories)
    mlflow.MlflowClient(versions.uri, versions.uri).set_model_version_tag(NAME, bad, "serving.force", "true")
    with Clients(service, versions, ("1",), n=2) as clients:
        # What it is compared with has to be scraped first.
        watching.wait_value(f'sum(model_predictions_total{{model="{NAME}"}}) > bool 200', 1)
        done = promote(bad, "--url", service.url, "--watch", "120", "--prometheus", watching.url)
    assert clients.answered["1"] > 0
    assert done.returncode == 1, done.stdout + done.stderr
    assert "requests fail, before 0.0%" in done.stdout
    assert aliases(versions)["production"] == "1"


def test_a_version_that_nobody_asks_is_said_not_to_be_judged(
    service: Service, watching: Prometheus, promote: Promote
):
    done = promote("2", "--url", service.url, "--watch", "2", "--prometheus", watching.url)
    assert done.returncode == 0
    assert "requests meanwhile, too few to say how it does" in done.stdout


def test_a_prometheus_that_goes_away_while_it_is_watched_takes_the_version_back(
    service: Service, watching: Prometheus, versions: Registry, tmp_path: Path
):
    process = subprocess.Popen(
        **command_line(
            versions, tmp_path, "2", "--url", service.url, "--watch", "600", "--prometheus", watching.url
        ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    wait_answering(service, "2")
    time.sleep(1)
    watching.process.kill()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out.splitlines()[-1] == (
        f"{NAME}@production was put back to version 1: "
        f"the Prometheus {watching.url} does not answer as one: Connection refused"
    )
    assert aliases(versions)["production"] == "1"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--prometheus", "{prometheus}"], "no model_info"),
        (["--prometheus", "{prometheus}", "--prometheus-selector", "env=prod"], "parse error"),
        (["--prometheus", "http://me:hunter2@127.0.0.1:1"], "does not answer as one"),
        (["--prometheus", f"http://127.0.0.1:{free_port()}"], "Connection refused"),
        (["--prometheus-selector", 'env="prod"'], "needs --prometheus"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line_and_nothing_is_moved(
    prometheus: Prometheus, versions: Registry, promote: Promote, arguments: list[str], part: str
):
    versions.promote("1")
    given = [argument.format(prometheus=prometheus.url) for argument in arguments]
    with FakeService(lambda: aliases(versions)).running() as service:
        done = promote("2", "--url", service.url, "--watch", "5", *given)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert part in done.stderr
    assert "hunter2" not in done.stderr
    assert aliases(versions)["production"] == "1"


def test_prometheus_without_anything_to_watch_is_told(promote: Promote):
    done = promote("2", "--prometheus", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "--prometheus needs --watch or --percent" in done.stderr
