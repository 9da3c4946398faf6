"""Champion, challenger and shadow in a real service with two workers."""

import collections
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.prepare.registry.resolution import CHALLENGER_PERCENT_TAG
from tests.prepare.sync.test_promotion import two_workers
from tests.support.environment import tracking, wait_until
from tests.support.models import frame
from tests.support.promotions import (
    NAME,
    ROWS,
    Clients,
    Registry,
    described_everywhere,
    nan_outputs,
    refused,
    wait_answering,
)
from tests.support.services import Service, running_service

KEYS = [f"customer-{n}" for n in range(60)]


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry with a champion, a challenger and a shadow."""
    registry = Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.01, 0.0001)
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_registered_model_alias(NAME, "challenger", "2")
    client.set_registered_model_alias(NAME, "shadow", "3")
    return registry


def set_percent(registry: Registry, percent: str) -> None:
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_registered_model_tag(NAME, CHALLENGER_PERCENT_TAG, percent)


@pytest.fixture
def three(versions: Registry, tmp_path: Path) -> Iterator[Service]:
    """Two workers with all three."""
    set_percent(versions, "50")
    with two_workers(
        tmp_path,
        versions,
        SERVING_CHALLENGER_ALIAS="challenger",
        SERVING_SHADOW_ALIAS="shadow",
        SERVING_ALLOW_VERSION_CHOICE="true",
    ) as service:
        wait_roles(service, 180, champion=("1", 50), challenger=("2", 50), shadow=("3", 100))
        yield service


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
                found[sample.labels["version"], sample.labels.get("role", "")] += sample.value
    return dict(found)


def by_key(service: Service) -> dict[str, str]:
    return {key: version_of(ask(service, **{"X-Routing-Key": key})) for key in KEYS}


def test_a_key_gets_the_same_version_from_every_worker_and_replica(
    three: Service, versions: Registry, tmp_path: Path
) -> None:
    first = by_key(three)
    assert set(first.values()) == {"1", "2"}
    assert by_key(three) == first
    with running_service(
        tmp_path / "replica",
        MLFLOW_TRACKING_URI=versions.uri,
        SERVING_MODEL_NAME=NAME,
        SERVING_CHALLENGER_ALIAS="challenger",
    ) as replica:
        replica.wait_ready()
        wait_roles(replica, 180, champion=("1", 50), challenger=("2", 50))
        assert by_key(replica) == first


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
    before = samples(three, "model_shadow_compared_total").get(("3", ""), 0)
    for start in range(0, len(rows), 20):
        response = ask(three, rows.iloc[start : start + 20].to_dict("records"))
        assert version_of(response) == "1"
        assert response.headers["X-Model-Role"] == "champion"
    assert (one != other).any()

    def compared() -> float:
        return samples(three, "model_shadow_compared_total").get(("3", ""), 0) - before

    wait_until(lambda: compared() == len(rows), 20, "all rows are compared")
    # Counted right after, by another process.
    wait_until(
        lambda: samples(three, "model_shadow_disagreements_total").get(("3", "")) == (one != other).sum(),
        20,
        "the differences are counted",
    )

    def answered(role: tuple[str, str]) -> bool:
        return samples(three, "model_predictions_total").get(role, 0) >= len(rows)

    wait_until(lambda: answered(("3", "shadow")) and answered(("1", "champion")), 20, "both are counted")
    latency = samples(three, "model_prediction_latency_seconds_count")
    assert latency["3", "shadow"] > 0


def test_errors_are_counted_for_the_version_that_was_asked(three: Service) -> None:
    bad = ask(three, [{"alcohol": "much"}], **{"X-Model-Version": "2"})
    assert bad.status_code == 422
    assert samples(three, "model_prediction_errors_total")["2", "challenger"] == 1


def test_a_bad_challenger_stays_out_and_the_champion_answers(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "own", 1.0)
    bad = registry.add(nan_outputs)
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_registered_model_alias(NAME, "challenger", bad)
    with two_workers(
        tmp_path, registry, SERVING_CHALLENGER_ALIAS="challenger", SERVING_CHALLENGER_PERCENT="50"
    ) as service:
        wait_until(lambda: bad in refused(service), 180, "it is refused")
        wait_answering(service, "1")
        wait_roles(service, 30, champion=("1", 100))
        assert service.http.get("/v1/models").json()["stale"] is None
        assert service.log.count("no challenger:") == 1
        forbidden = ask(service, **{"X-Model-Version": "1"})
        assert forbidden.status_code == 403
        assert "SERVING_ALLOW_VERSION_CHOICE" in forbidden.json()["error"]["message"]


def test_what_the_shadow_refuses_is_counted_and_nobody_told(tmp_path: Path) -> None:
    """Its signature has a column less: it is refused as a version, unless forced, and then refuses the rows."""
    registry = Registry(tmp_path / "own", 1.0)

    def narrow(name: str) -> Any:
        from mlflow.models import infer_signature
        from sklearn.linear_model import LogisticRegression

        X = frame(NAME).drop(columns="alcohol")
        y = np.arange(len(X)) % 3
        model = LogisticRegression(max_iter=50).fit(X / X.max(), y)
        return mlflow.sklearn.log_model(
            model,
            name=name,
            registered_model_name=name,
            pip_requirements=["scikit-learn"],
            signature=infer_signature(X, pd.Series(y)),
        )

    version = registry.add(narrow)
    client = mlflow.MlflowClient(registry.uri, registry.uri)
    client.set_registered_model_alias(NAME, "shadow", version)
    client.set_model_version_tag(NAME, version, "serving.force", "true")
    with two_workers(tmp_path, registry, SERVING_SHADOW_ALIAS="shadow") as service:
        wait_roles(service, 180, champion=("1", 100), shadow=(version, 100))
        assert version_of(ask(service)) == "1"
        wait_until(
            lambda: samples(service, "model_prediction_errors_total").get((version, "shadow")) == 1,
            20,
            "the shadow's refusal is counted",
        )
