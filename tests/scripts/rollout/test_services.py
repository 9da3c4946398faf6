"""`scripts/canary.py` between real services, judged by what a real Prometheus has scraped of them."""

import contextlib
import http.client
import json
import random
from collections import ChainMap
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from scripts import canary
from scripts.rollout import progression, target
from tests.scripts.rollout.clock import Clock
from tests.scripts.rollout.conftest import running_cluster
from tests.scripts.rollout.kinds import KINDS, NAMESPACE, Kind
from tests.scripts.rollout.kube_api import KubeApi
from tests.support.beside import Beside
from tests.support.models import strict_categories
from tests.support.prepared import prepare_all
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promotions import NAME, ROWS, Registry
from tests.support.services import Service, running_service

ROUTE, SELDON, DEPLOYMENT, ROLLOUT = KINDS

SCRAPE_SECONDS = 0.2
STEPS = ["--step-seconds", "0.6", "--max-step-seconds", "60", "--min-requests", "40", "--min-rows", "200"]
# Of two processes on one busy machine either may be slower.
STEPS += ["--max-latency-ratio", "100"]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A good version, one that sees one class everywhere, and one that takes other columns."""
    made = Registry(tmp_path_factory.mktemp("registry"), 1.0, 1e-9)
    made.add(strict_categories)
    prepare_all(made.uri)
    return made


@pytest.fixture
def cluster(clock: Clock, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApi]:
    """An empty cluster in the time of the services, in which the script looks as often as Prometheus does."""
    monkeypatch.setattr(progression, "LOOK_SECONDS", 0.4)
    monkeypatch.setattr(target, "POLL_SECONDS", 0.05)
    with running_cluster(clock, kubeconfig) as api, clock.in_real_time():
        yield api


@pytest.fixture(scope="module")
def serve(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Service]]:
    """Starts a service with a version; each once."""
    with contextlib.ExitStack() as stack:
        running: dict[tuple[str, str], Service] = {}

        def start(side: str, version: str) -> Service:
            if (side, version) not in running:
                service = stack.enter_context(
                    running_service(
                        tmp_path_factory.mktemp("service"),
                        MLFLOW_TRACKING_URI=registry.uri,
                        SERVING_MODEL_NAME=NAME,
                        SERVING_MODEL_VERSION=version,
                    )
                )
                running[side, version] = service.wait_ready()
            return running[side, version]

        yield start


class Gateway(Beside):
    """Requests that go to one of two services, by the weights that the cluster has at the moment."""

    def __init__(self, stable: Service, canary: Service, percent: Callable[[], float]) -> None:
        self._services = (stable, canary)
        self._percent = percent
        super().__init__(*[partial(self._fire, seed) for seed in range(2)])

    def _fire(self, seed: int) -> None:
        chance = random.Random(seed)
        body = json.dumps({"instances": ROWS})
        connections = [
            http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
            for service in self._services
        ]
        while not self.over.wait(0.004):
            connection = connections[chance.random() * 100 < self._percent()]
            connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
            connection.getresponse().read()
        for connection in connections:
            connection.close()


@pytest.fixture(scope="module")
def scrape(
    serve: Callable[..., Service], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Prometheus]]:
    """Starts a Prometheus that scrapes version 1 and a canary, labelled as each kind of cluster would; each once.

    It is five seconds until it begins.
    """
    # A pod of a Deployment has another name than one of Seldon's; the other labels stand beside each other.
    labelled = (ROUTE, SELDON, ROLLOUT), (DEPLOYMENT,)
    with contextlib.ExitStack() as stack:
        running: dict[str, Prometheus] = {}

        def start(version: str) -> Prometheus:
            if version not in running:
                targets = [
                    {
                        "targets": [service.url.removeprefix("http://")],
                        "labels": {
                            "namespace": NAMESPACE,
                            **ChainMap(*(kind.labels[side] for kind in kinds)),
                        },
                    }
                    for side, service in enumerate((serve("stable", "1"), serve("canary", version)))
                    for kinds in labelled
                ]
                interval = f"{round(SCRAPE_SECONDS * 1000)}ms"
                settings = {
                    "global": {"scrape_interval": interval, "scrape_timeout": interval},
                    "scrape_configs": [{"job_name": "serving", "static_configs": targets}],
                }
                folder = tmp_path_factory.mktemp("prometheus")
                running[version] = stack.enter_context(running_prometheus(folder, settings=settings))
                running[version].wait_value("count(model_info)", len(targets))
            return running[version]

        yield start


def drive(
    kind: Kind,
    version: str,
    serve: Callable[..., Service],
    scrape: Callable[[str], Prometheus],
    cluster: KubeApi,
) -> tuple[int, float]:
    """Runs the script from version 1 to a canary with another; returns its exit code and the canary's last part."""
    stable, new = serve("stable", "1"), serve("canary", version)
    document = kind.add(cluster)

    def percent() -> float:
        with cluster.lock:
            return kind.percent(document, cluster)

    arguments = [kind.name, *kind.arguments, "--namespace", NAMESPACE, *STEPS]
    if kind is not ROLLOUT:
        arguments += ["--steps", "50,100"]
    prometheus = scrape(version)
    with Gateway(stable, new, percent):
        code = canary.main([*arguments, "--prometheus", prometheus.url])
    return code, percent()


@pytest.mark.parametrize("one", KINDS, ids=lambda kind: kind.name)
def test_the_same_version_gets_all_traffic(one, serve, scrape, cluster, capsys):
    code, percent = drive(one, "1", serve, scrape, cluster)
    said = capsys.readouterr()
    assert (code, percent) == (0, 100), said
    assert said.err == ""
    assert ", 0.0% failed, 95 % within" in said.out


def test_a_version_that_sees_other_classes_is_put_back(serve, scrape, cluster, capsys):
    code, percent = drive(ROUTE, "2", serve, scrape, cluster)
    last = capsys.readouterr().out.splitlines()[-1]
    assert (code, percent) == (1, 0), last
    assert "weights are as before: model-server 1, model-server-next 0, because the canary predicts" in last


def test_a_version_that_refuses_what_the_other_takes_is_put_back(serve, scrape, cluster, capsys):
    code, percent = drive(ROLLOUT, "3", serve, scrape, cluster)
    last = capsys.readouterr().out.splitlines()[-1]
    assert (code, percent) == (1, 0), last
    assert "requests of the canary fail, stable: 0.0% of" in last
