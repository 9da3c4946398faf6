"""`scripts/promote.py` beside a real service under load: followed, watched, and put back where a version does worse."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts import promote
from tests.support.environment import wait_until
from tests.support.fake_service import Run
from tests.support.models import strict_categories
from tests.support.prepared import prepare_all
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promotions import NAME, Clients, Registry, two_workers, version_of_strength, wait_answering
from tests.support.services import Service

FAILS, REFUSED = "4", "5"
"""The version that takes none of the rows that callers send, and one whose files are not those that were registered, so
that the gate keeps it out."""


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Three good versions, one that passes the gate by force, and one that does not; all are prepared already."""
    made = Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.1, 0.01)
    assert made.add(strict_categories) == FAILS
    made.client.set_model_version_tag(NAME, FAILS, "serving.force", "true")
    assert made.add(version_of_strength(10.0)) == REFUSED
    prepare_all(made.uri)
    made.client.set_model_version_tag(NAME, REFUSED, "serving.digest", "another")
    return made


@pytest.fixture(scope="module")
def two(versions: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two workers that all tests share."""
    folder = tmp_path_factory.mktemp("service")
    with two_workers(folder, versions, SERVING_CHALLENGER_ALIAS="challenger") as running:
        yield running


@pytest.fixture(scope="module")
def prometheus(two: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes the service."""
    with running_prometheus(tmp_path_factory.mktemp("scraped"), two.url.removeprefix("http://")) as running:
        yield running


@pytest.fixture
def registry(versions: Registry) -> Registry:
    """Version 1 is in production, and there is no challenger."""
    versions.client.delete_registered_model_alias(NAME, "challenger")
    versions.promote("1")
    return versions


@pytest.fixture
def service(registry: Registry, two: Service) -> Service:
    """It answers with version 1."""
    wait_answering(two, "1")
    return two


@pytest.fixture(params=["as it counts itself", "as a Prometheus has scraped it"])
def judged_by(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options that say who counts the service's requests."""
    if request.param == "as it counts itself":
        return ()
    scraping: Prometheus = request.getfixturevalue("prometheus")
    scraping.wait_value(f'count(model_info{{model_name="{NAME}"}}) > bool 0', 1)
    return ("--prometheus", scraping.url)


def clients(service: Service, registry: Registry, *versions: str) -> Clients:
    """Two that leave time for what they are there to see."""
    return Clients(service, registry, versions, n=2, pause_seconds=0.02)


def test_a_version_is_promoted_followed_and_watched(service: Service, registry: Registry, run: Run):
    dry = run(promote, "2", "--dry-run")
    assert dry == (0, f"{NAME}@production would go from version 1 to 2\n", "")
    assert registry.aliases == {"production": "1"}
    with clients(service, registry, "1", "2") as asking:
        code, out, err = run(promote, "2", "--url", service.url, "--watch", "1", "--why", "better", "--json")
        wait_answering(service, "2")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["from"], told["to"], told["done"]) == ("1", "2", True)
    assert asking.wrong == []
    (line,) = Path("audit.jsonl").read_text().splitlines()
    assert json.loads(line)["why"] == "better"
    code, out, _ = run(promote, "2", "--url", service.url)
    assert code == 0
    assert "is version 2 already" in out


def test_a_version_that_the_service_refuses_is_taken_back(service: Service, registry: Registry, run: Run):
    with clients(service, registry, "1") as asking:
        code, out, _ = run(promote, REFUSED, "--url", service.url)
    assert code == 1
    assert "but the tag serving.digest says another" in out
    assert "was rolled back to version 1" in out
    assert registry.aliases == {"production": "1"}
    assert asking.wrong == []
    wait_until(
        lambda: service.http.get("/v1/models").json()["stale"] is None, 30, "the service is content again"
    )


def test_a_version_that_fails_its_requests_is_taken_back(
    service: Service, registry: Registry, run: Run, judged_by: tuple[str, ...], request: pytest.FixtureRequest
):
    with clients(service, registry, "1") as asking:
        if judged_by:  # what it is compared with has to be scraped first
            scraped = f'sum(model_predictions_total{{model_name="{NAME}",model_version="1"}}) > bool 200'
            request.getfixturevalue("prometheus").wait_value(scraped, 1)
        code, out, _ = run(promote, FAILS, "--url", service.url, "--watch", "60", *judged_by)
    assert asking.answered["1"] > 0
    assert code == 1
    assert "requests fail, before 0.0%" in out
    assert registry.aliases == {"production": "1"}


def test_step_by_step_by_way_of_the_challenger(
    service: Service, registry: Registry, run: Run, judged_by: tuple[str, ...]
):
    with clients(service, registry, "1", "2") as asking:
        steps = ("--percent", "50,100", "--interval", "2", "--watch", "2")
        code, out, err = run(promote, "2", "--url", service.url, *steps, *judged_by)
    assert (code, err) == (0, "")
    assert "gets 50 % of the requests" in out
    assert "gets 100 % of the requests" in out
    assert "too few to judge" not in out
    assert asking.wrong == []
    assert registry.aliases == {"production": "2"}
    wait_answering(service, "2")
