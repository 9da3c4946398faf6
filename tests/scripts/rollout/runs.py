"""What a canary is tried in, and what is said of it."""

from typing import Any, NamedTuple

import pytest

from scripts import canary
from tests.scripts.rollout.clock import Clock
from tests.scripts.rollout.fake_prometheus import FakePrometheus
from tests.scripts.rollout.kinds import Kind
from tests.scripts.rollout.kube_api import KubeApi
from tests.scripts.rollout.traffic import Side


class Run(NamedTuple):
    """What a canary is tried in."""

    clock: Clock
    cluster: KubeApi
    document: dict[str, Any]
    kind: Kind
    stable: Side
    canary: Side
    prometheus: FakePrometheus
    arguments: list[str]

    @property
    def percent(self) -> float:
        """Of the traffic, that the canary has now."""
        with self.cluster.lock:
            return self.kind.percent(self.document, self.cluster)


def of(*kinds: Kind) -> pytest.MarkDecorator:
    """Tries a test with these kinds only."""
    return pytest.mark.parametrize("kind", kinds, ids=[kind.name for kind in kinds], indirect=True)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line that a run which did nothing prints."""
    assert canary.main(list(arguments)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("canary.py: ")
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
    return said.err.removeprefix("canary.py: ").rstrip()


def restoring(run: Run) -> list[str]:
    """The command line that puts back by hand."""
    return [*run.arguments[: run.arguments.index("--prometheus")], "--restore"]
