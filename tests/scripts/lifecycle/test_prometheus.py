"""`scripts/promote.py --prometheus`: judged by what a real Prometheus has scraped."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from scripts import promote
from scripts.lifecycle import LifecycleError
from scripts.lifecycle.guard import Counts
from scripts.lifecycle.prometheus import PrometheusCounts, increase
from tests.support.environment import free_port
from tests.support.fake_service import FakeService, Run
from tests.support.prometheus import Pod, Prometheus, running_prometheus
from tests.support.promotions import NAME, Registry
from tests.support.proxy import Proxy


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


class Scraped(NamedTuple):
    """A Prometheus, and the pods that it scrapes: of a model of its own for each test."""

    prometheus: Prometheus
    adding: list[Pod]
    """Two that run, and one that does not yet."""
    asked: Pod
    labelled: Pod
    promoted: Pod


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    adding, others = [Pod("adding") for _ in range(3)], [Pod("asked"), Pod("labelled"), Pod(NAME)]
    pods = [*adding, *others]
    with contextlib.ExitStack() as stack:
        for pod in pods:
            stack.callback(pod.stop)
            if pod is not adding[-1]:
                pod.start()
        addresses = [pod.address for pod in pods]
        folder = tmp_path_factory.mktemp("prometheus")
        running = stack.enter_context(running_prometheus(folder, *addresses, scrape_seconds=0.5))
        yield Scraped(running, adding, *others)


def answered(model: str, version: str) -> str:
    return f'sum(model_prediction_latency_seconds_count{{model_name="{model}",model_version="{version}",role="champion"}})'


def test_pods_that_come_go_and_begin_anew_are_added_up(scraped: Scraped):
    leaves, restarts, comes = scraped.adding
    query = answered("adding", "2")
    leaves.show("2", answered=100, seconds=10, failed=5)
    restarts.show("2", answered=40, seconds=4)
    scraped.prometheus.wait_value(query, 140)
    since = PrometheusCounts(scraped.prometheus.url, "adding").follow("2")
    leaves.show("2", answered=130, seconds=16, failed=6)  # 30 more, 6 s, 1 failed
    restarts.show("2", answered=60, seconds=5, failed=3)  # 20 more, 1 s, and the first 3 failed ones
    scraped.prometheus.wait_value(query, 190)
    leaves.stop()
    restarts.show("2", answered=7, seconds=2, failed=0)  # 7 more, 2 s
    comes.show("2", answered=11, seconds=1, failed=2)  # 11 more, 1 s, 2 failed
    comes.start()
    scraped.prometheus.wait_value(query, 18)
    assert since() == Counts(answered=30 + 20 + 7 + 11, failed=1 + 3 + 2, seconds=6 + 1 + 2 + 1)


def test_the_past_is_what_a_version_was_asked(scraped: Scraped):
    scraped.asked.show("1", answered=70, seconds=7, failed=2)
    scraped.asked.show("2", answered=9)
    scraped.prometheus.wait_value(answered("asked", "2"), 9)
    assert PrometheusCounts(scraped.prometheus.url, "asked").past("1") == Counts(70, 2, 7)


def test_another_model_and_labels_that_do_not_match_are_not_counted(scraped: Scraped):
    url = scraped.prometheus.url
    scraped.labelled.show("2", answered=9)
    scraped.prometheus.wait_value(answered("labelled", "2"), 9)
    assert PrometheusCounts(url, "labelled", 'env="prod"').past("2").answered == 9
    with pytest.raises(LifecycleError, match="it scrapes no service with this model"):
        PrometheusCounts(url, "labelled", 'env="test"').past("2")
    with pytest.raises(LifecycleError, match="it scrapes no service with this model"):
        PrometheusCounts(url, "beer").past("2")


@pytest.fixture
def prometheus(scraped: Scraped) -> Prometheus:
    """It has scraped that version 1 was asked, and version 2 was not."""
    scraped.promoted.show("1", answered=1000, seconds=1)
    scraped.prometheus.wait_value(answered(NAME, "1"), 1000)
    return scraped.prometheus


def test_a_version_that_nobody_asks_is_said_not_to_be_judged(
    registry: Registry, service: FakeService, run: Run, prometheus: Prometheus
):
    code, out, _ = run(promote, "2", "--url", service.url, "--watch", "0.5", "--prometheus", prometheus.url)
    assert code == 0
    assert "0 requests meanwhile, too few to judge it" in out
    assert registry.aliases == {"production": "2"}


def test_a_prometheus_that_goes_away_while_it_is_watched_takes_the_version_back(
    registry: Registry, service: FakeService, run: Run, prometheus: Prometheus
):
    with contextlib.ExitStack() as stack:
        port = int(prometheus.url.rpartition(":")[2])
        url = stack.enter_context(Proxy(port).running()).url
        looks: list[str] = []

        def look() -> None:
            looks.append(registry.aliases["production"])
            if looks.count("2") == 10:
                stack.close()

        service.on_look = look
        code, out, _ = run(promote, "2", "--url", service.url, "--watch", "600", "--prometheus", url)
    assert code == 1
    assert out.splitlines()[-1] == (
        f"{NAME}@production was rolled back to version 1: "
        f"the Prometheus {url} gave no valid answer: Connection refused"
    )
    assert registry.aliases == {"production": "1"}


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--prometheus", "{prometheus}", "--prometheus-selector", 'env="test"'], "no model_info"),
        (["--prometheus", "{prometheus}", "--prometheus-selector", "env=prod"], "parse error"),
        (["--prometheus", "http://me:hunter2@127.0.0.1:1"], "gave no valid answer"),
        (["--prometheus", f"http://127.0.0.1:{free_port()}"], "Connection refused"),
        (["--prometheus-selector", 'env="prod"'], "needs --prometheus"),
    ],
)
def test_what_cannot_be_asked_is_told_in_one_line_and_nothing_is_moved(
    registry: Registry,
    service: FakeService,
    run: Run,
    scraped: Scraped,
    arguments: list[str],
    part: str,
):
    given = [argument.format(prometheus=scraped.prometheus.url) for argument in arguments]
    code, out, err = run(promote, "2", "--url", service.url, "--watch", "5", *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err
    assert "hunter2" not in err
    assert registry.aliases == {"production": "1"}
