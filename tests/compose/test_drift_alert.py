"""From a request to a message: a real service, Prometheus and Alertmanager with the files that ship."""

import re
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.compose.configuring import PROMETHEUS
from tests.compose.conftest import address_of
from tests.compose.test_alertmanager import WEBHOOK, Receiver, running_alertmanager
from tests.support.environment import wait_until
from tests.support.models import fill_registry
from tests.support.prometheus import running_prometheus
from tests.support.services import Service, running_service

SHIFTED = "mean texture"


def log(name: str) -> Any:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    return mlflow.sklearn.log_model(model, name=name, registered_model_name=name, input_example=X)


def send(service: Service, *, shift: float) -> None:
    """Sends each row of the training data; they are as many as the reference."""
    X = load_breast_cancer(as_frame=True).data
    rows = X.assign(**{SHIFTED: X[SHIFTED] + shift}).to_dict("records")
    service.http.post("/v1/predict", json={"instances": rows}).raise_for_status()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """The rules that ship, without the wait for more evidence."""
    folder = tmp_path / "prometheus"
    folder.mkdir()
    text = PROMETHEUS.with_name("rules.yaml").read_text()
    text, n_waits = re.subn(r"for: \d+m|interval: 1m", lambda m: re.sub(r"\d+m", "1s", m[0]), text)
    assert n_waits > 10
    (folder / "rules.yaml").write_text(text)
    return folder


def test_an_input_that_shifts_is_named_in_a_message(rules: Path, tmp_path: Path) -> None:
    registry = fill_registry(tmp_path / "registry", {"cancer": log})
    settings: dict[str, Any] = yaml.safe_load(PROMETHEUS.read_text())
    settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    with (
        running_service(tmp_path, MLFLOW_TRACKING_URI=registry, SERVING_MODEL_NAME="cancer") as service,
        Receiver().running() as receiver,
    ):
        service.wait_ready()
        (tmp_path / "url").write_text(receiver.url)
        with running_alertmanager(tmp_path, changed={WEBHOOK: str(tmp_path / "url")}) as alertmanager:
            settings["scrape_configs"][0]["static_configs"] = [{"targets": [address_of(service)]}]
            found = settings["alerting"]["alertmanagers"][0]
            found["static_configs"] = [{"targets": [alertmanager.removeprefix("http://")]}]
            with running_prometheus(rules, settings=settings) as prometheus:
                prometheus.wait_value("count(model_ready)", 1)
                send(service, shift=0)
                prometheus.wait_value('min(model_server:feature_rows:increase1h{kind="input"}) > bool 500', 1)
                assert prometheus.value("count(model_server:feature_drifted:index1h)") is None

                send(service, shift=10)
                wait_until(lambda: receiver.posted, 30, "a message has come")

    labels = [alert["labels"] for message in receiver.posted for alert in message["alerts"]]
    assert {(one["alertname"], one["feature"], one["model_version"]) for one in labels} == {
        ("ModelFeatureDrift", SHIFTED, "1")
    }
    (summary,) = {
        alert["annotations"]["summary"] for message in receiver.posted for alert in message["alerts"]
    }
    assert summary.startswith(f"{SHIFTED} of cancer version 1 has drifted: its stability index is ")
