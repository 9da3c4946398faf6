"""A cluster, and two sides under traffic, in a time that passes as soon as the script sleeps."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.lifecycle import prometheus, retry
from scripts.rollout import argo, deployments, progression, target
from tests.scripts.rollout.clock import Clock
from tests.scripts.rollout.fake_prometheus import FakePrometheus
from tests.scripts.rollout.kinds import KINDS, NAMESPACE, Kind
from tests.scripts.rollout.kube_api import KubeApi, write_kubeconfig
from tests.scripts.rollout.runs import Run
from tests.scripts.rollout.traffic import Side, let_traffic_flow


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Signals that a run leaves ignored are not for the next test; one that nobody handles fails its test only."""

    def fail(number: int, _: object) -> None:
        raise AssertionError(f"nobody handles signal {number}")

    sent = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, fail) for number in sent}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def clock() -> Clock:
    """The time of the cluster, and of all that is in it."""
    return Clock()


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file by which the script, also in a process of its own, finds a cluster."""
    from kubernetes.config import kube_config

    file = tmp_path / "kubeconfig"
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.setenv("KUBECONFIG", str(file))
    return file


@contextlib.contextmanager
def running_cluster(clock: Clock, kubeconfig: Path) -> Iterator[KubeApi]:
    """Runs an empty cluster."""
    with KubeApi(clock).running() as api:
        write_kubeconfig(kubeconfig, api.url)
        yield api


@pytest.fixture
def cluster(clock: Clock, kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubeApi]:
    """An empty cluster; the script sleeps by its clock, and not for long."""
    for module in (progression, target, retry, prometheus):
        monkeypatch.setattr(module, "time", clock)
    for module, name, seconds in (
        (progression, "LOOK_SECONDS", 0.1),
        (target, "POLL_SECONDS", 0.05),
        (target, "PATIENCE_SECONDS", 1),
        (progression, "LOST_SECONDS", 0.5),
        (argo, "ABORT_SECONDS", 2),
        (argo, "START_SECONDS", 2),
        (argo, "STEP_SECONDS", 2),
        (deployments, "READY_SECONDS", 2),
        (retry, "PUT_BACK_SECONDS", 1),
        (retry, "PAUSE_SECONDS", 0.05),
        (prometheus, "PAUSE_SECONDS", 0.05),
    ):
        monkeypatch.setattr(module, name, seconds)
    with running_cluster(clock, kubeconfig) as api:
        yield api


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def run(clock: Clock, cluster: KubeApi, kind: Kind) -> Iterator[Run]:
    """Both sides under traffic, split as the cluster says at each moment."""
    document = kind.add(cluster)
    stable, canary = Side(), Side()
    sides = dict(zip(kind.parts, (stable, canary), strict=True))
    with FakePrometheus(sides, clock).running() as server:
        arguments = [kind.name, *kind.arguments, "--namespace", NAMESPACE, "--prometheus", server.url]
        arguments += ["--step-seconds", "0.3", "--max-step-seconds", "20"]
        made = Run(clock, cluster, document, kind, stable, canary, server, arguments)
        let_traffic_flow(clock, stable, canary, lambda: made.percent)
        yield made


@pytest.fixture
def at_first_look(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Lets something happen right after a canary was judged for the first time, while the script sleeps."""

    def hook(act: Callable[[], Any]) -> None:
        original = progression.judge

        def judge(*arguments: Any) -> Any:
            monkeypatch.setattr(progression, "judge", original)
            clock.after(0, act)
            return original(*arguments)

        monkeypatch.setattr(progression, "judge", judge)

    return hook
