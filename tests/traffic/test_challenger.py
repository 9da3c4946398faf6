"""Champion, challenger and shadow in a real service with two workers."""

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sklearn.linear_model import LogisticRegression

from serving.prepare.registry.resolution import CHALLENGER_PERCENT_TAG, SEMANTIC_VERSION_TAG
from tests.http.in_process import running_application
from tests.support.environment import tracking, wait_until
from tests.support.models import frame
from tests.support.promotions import (
    NAME,
    ROWS,
    Clients,
    Registry,
    described_everywhere,
    log_wine,
    nan_outputs,
    refused,
    two_workers,
)
from tests.support.services import Service

KEYS = [f"customer-{n}" for n in range(60)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with a champion, a challenger and a shadow."""
    registry = Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.01, 0.0001)
    set_alias(registry, "challenger", "2")
    set_alias(registry, "shadow", "3")
    return registry


def set_alias(registry: Registry, alias: str, version: str) -> None:
    mlflow.MlflowClient(registry.uri, registry.uri).set_registered_model_alias(NAME, alias, version)


def set_percent(registry: Registry, percent: str) -> None:
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_registered_model_tag(NAME, CHALLENGER_PERCENT_TAG, percent)


@pytest.fixture(scope="module")
def running(versions: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with two_workers(
        tmp_path_factory.mktemp("service"),
        versions,
        SERVING_CHALLENGER_ALIAS="challenger",
        SERVING_SHADOW_ALIAS="shadow",
        SERVING_ALLOW_VERSION_CHOICE="true",
    ) as service:
        yield service


@pytest.fixture
def three(running: Service, versions: Registry) -> Service:
    """Two workers with all three in their roles, whatever the test before has made of them."""
    versions.promote("1")
    set_alias(versions, "challenger", "2")
    set_alias(versions, "shadow", "3")
    set_percent(versions, "50")
    wait_roles(running, 180, champion=("1", 50), challenger=("2", 50), shadow=("3", 100))
    return running


def wait_roles(service: Service, seconds: float, **roles: tuple[str, float]) -> None:
    """Waits until every worker has these versions in these roles, with these shares, and no others."""

    def are_there() -> bool:
        return all(
            {one["role"]: (one["version"], one["percent"]) for one in said["models"]} == roles
            for said in described_everywhere(service)
        )

    wait_until(are_there, seconds, str(roles))


def ask(service: Service, rows: Any = None, **headers: str) -> httpx.Response:
    return service.ask_anew("POST", "/v1/predict", json={"instances": rows or ROWS[:1]}, headers=headers)


def version_of(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    version = str(response.json()["model"]["version"])
    assert response.headers["X-Model-Version"] == version
    return version


def samples(service: Service, name: str) -> dict[tuple[str, str], float]:
    """A metric's values by version and role."""
    found: collections.Counter[tuple[str, str]] = collections.Counter()
    for family in text_string_to_metric_families(service.http.get("/metrics").text):
        for sample in family.samples:
            if sample.name == name:
                found[sample.labels["model_version"], sample.labels.get("role", "")] += sample.value
    return dict(found)


def by_key(service: Service) -> dict[str, str]:
    return {key: version_of(ask(service, **{"X-Routing-Key": key})) for key in KEYS}


def test_a_key_gets_the_same_version_from_every_worker_and_replica(
    three: Service, versions: Registry, tmp_path: Path
) -> None:
    first = by_key(three)
    assert set(first.values()) == {"1", "2"}
    assert by_key(three) == first
    with running_application(
        tmp_path / "replica", versions.uri, NAME, SERVING_CHALLENGER_ALIAS="challenger"
    ) as replica:
        got = {
            key: version_of(
                replica.post("/v1/predict", json={"instances": ROWS[:1]}, headers={"X-Routing-Key": key})
            )
            for key in KEYS
        }
        assert got == first


def test_the_share_is_changed_in_the_registry_and_the_challenger_can_be_promoted_under_load(
    three: Service, versions: Registry
) -> None:
    with Clients(three, versions, ("1", "2"), n=2) as clients:
        set_percent(versions, "0")
        wait_until(lambda: set(by_key(three).values()) == {"1"}, 30, "the champion answers all")
        set_percent(versions, "100")
        wait_until(lambda: set(by_key(three).values()) == {"2"}, 30, "the challenger answers all")
        versions.promote("2")
        wait_roles(three, 60, champion=("2", 100), shadow=("3", 100))
        versions.promote("1")
        wait_roles(three, 60, champion=("1", 0), challenger=("2", 100), shadow=("3", 100))
    assert clients.wrong == []


def test_a_request_may_name_a_version(three: Service, versions: Registry, tmp_path: Path) -> None:
    named = ("1", "2", "3", "champion", "challenger", "shadow", "production")
    got = [version_of(ask(three, **{"X-Model-Version": name})) for name in named]
    assert got == ["1", "2", "3", "1", "2", "3", "1"]
    missing = ask(three, **{"X-Model-Version": "9"})
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "version_not_found"
    assert "9" not in missing.json()["error"]["message"].replace("(", " ").split()


def test_the_shadow_is_asked_and_compared_and_callers_see_nothing_of_it(
    three: Service, versions: Registry
) -> None:
    rows = frame(NAME)
    with tracking(versions.uri):
        one, other = (mlflow.sklearn.load_model(f"models:/{NAME}/{n}").predict(rows) for n in (1, 3))
    set_percent(versions, "0")
    wait_roles(three, 60, champion=("1", 100), challenger=("2", 0), shadow=("3", 100))
    before = settled_counts(three)
    for start in range(0, len(rows), 20):
        response = ask(three, rows.iloc[start : start + 20].to_dict("records"))
        assert version_of(response) == "1"
        assert response.headers["X-Model-Role"] == "champion"
    assert (one != other).any()

    def added(name: str, role: tuple[str, str]) -> float:
        return samples(three, name).get(role, 0) - before[name].get(role, 0)

    wait_until(
        lambda: added("model_shadow_compared_total", ("3", "")) == len(rows), 20, "all rows are compared"
    )
    # Counted right after, by another process.
    wait_until(
        lambda: added("model_shadow_disagreements_total", ("3", "")) == (one != other).sum(),
        20,
        "the differences are counted",
    )
    for role in (("3", "shadow"), ("1", "champion")):
        wait_until(
            lambda role=role: added("model_predictions_total", role) >= len(rows), 20, f"{role} is counted"
        )
    assert added("model_prediction_latency_seconds_count", ("3", "shadow")) > 0


def settled_counts(service: Service) -> dict[str, dict[tuple[str, str], float]]:
    """What was counted before, once nothing is added any more: a shadow is asked after the answer is out."""
    names = (
        "model_shadow_compared_total",
        "model_shadow_disagreements_total",
        "model_predictions_total",
        "model_prediction_latency_seconds_count",
    )
    seen: list[dict[str, dict[tuple[str, str], float]]] = [{}]

    def is_settled() -> bool:
        described_everywhere(service)
        seen.append({name: samples(service, name) for name in names})
        return seen[-1] == seen[-2]

    wait_until(is_settled, 30, "nothing is counted any more")
    return seen[-1]


def test_errors_are_counted_for_the_version_that_was_asked(three: Service) -> None:
    bad = ask(three, [{"alcohol": "much"}], **{"X-Model-Version": "2"})
    assert bad.status_code == 422
    assert samples(three, "model_prediction_errors_total")["2", "challenger"] == 1


def test_a_bad_challenger_stays_out_and_the_champion_answers(three: Service, versions: Registry) -> None:
    bad = versions.add(nan_outputs)
    set_alias(versions, "challenger", bad)
    wait_until(lambda: bad in refused(three), 180, "it is refused")
    wait_roles(three, 30, champion=("1", 100), shadow=("3", 100))
    assert {version_of(ask(three)) for _ in range(12)} == {"1"}
    said = three.http.get("/v1/models").json()
    assert said["stale"] is None
    assert said["held_back"] == {"challenger": said["refused"][-1]["reason"]}
    assert three.log.count("no challenger:") == 1


def test_a_semantic_version_given_later_names_the_version(three: Service, versions: Registry) -> None:
    """The models are loaded: the tag of the registry is enough, and its change is followed."""
    for number, called in {"1": "1.4.0", "2": "2.0.0"}.items():
        versions.client.set_model_version_tag(NAME, number, SEMANTIC_VERSION_TAG, called)

    def called() -> dict[str, str | None]:
        models = described_everywhere(three)[0]["models"]
        return {one["version"]: one["semantic_version"] for one in models}

    wait_until(lambda: called() == {"1": "1.4.0", "2": "2.0.0", "3": None}, 60, "it is called so")
    asked = {
        name: version_of(ask(three, **{"X-Model-Version": name})) for name in ("v2", "2.0", "1.4.0", "v1")
    }
    assert asked == {"v2": "2", "2.0": "2", "1.4.0": "1", "v1": "1"}
    assert ask(three, **{"X-Model-Version": "3.0"}).status_code == 404


def test_naming_a_version_is_forbidden_where_no_setting_allows_it(versions: Registry, tmp_path: Path) -> None:
    with running_application(tmp_path, versions.uri, NAME) as application:
        forbidden = application.post(
            "/v1/predict", json={"instances": ROWS[:1]}, headers={"X-Model-Version": "1"}
        )
    assert forbidden.status_code == 403
    assert "SERVING_ALLOW_VERSION_CHOICE" in forbidden.json()["error"]["message"]


def test_what_the_shadow_refuses_is_counted_and_nobody_told(three: Service, versions: Registry) -> None:
    """Its signature has a column less: it is refused as a version, unless forced, and then refuses the rows."""

    def narrow(name: str) -> Any:
        X = frame(NAME).drop(columns="alcohol")
        model = LogisticRegression(max_iter=50).fit(X / X.max(), np.arange(len(X)) % 3)
        return log_wine(model, X, name)

    version = versions.add(narrow)
    client = mlflow.MlflowClient(versions.uri, versions.uri)
    client.set_model_version_tag(NAME, version, "serving.force", "true")
    set_alias(versions, "shadow", version)
    wait_roles(three, 180, champion=("1", 50), challenger=("2", 50), shadow=(version, 100))
    set_percent(versions, "0")
    wait_roles(three, 60, champion=("1", 100), challenger=("2", 0), shadow=(version, 100))
    assert version_of(ask(three)) == "1"
    wait_until(
        lambda: samples(three, "model_prediction_errors_total").get((version, "shadow")) == 1,
        20,
        "the shadow's refusal is counted",
    )
