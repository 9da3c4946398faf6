"""Grafana's dashboard asks for what there is, and shows it."""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from serving.monitoring.feedback.exposition import exposition
from tests.compose.configuring import GRAFANA, PROMETHEUS
from tests.compose.conftest import address_of
from tests.compose.dashboards import FILE, panels, queries
from tests.kubernetes.queries import labels_in, metrics_in, rules
from tests.kubernetes.test_agreement import exported
from tests.support.doubles import Double, Quiet
from tests.support.environment import free_port, wait_until
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promotions import NAME, ROWS
from tests.support.services import Service

ALL = queries()

RECORDED = [rule["expr"] for rule in rules() if "record" in rule]


def test_it_asks_for_metrics_that_exist() -> None:
    names, _ = exported()
    asked = set().union(*(metrics_in(query.expression) for query in ALL))
    assert asked - names == set()


def test_it_shows_every_metric_of_ours() -> None:
    """Itself or through a rule, but for the sums and counts of histograms that it shows as quantiles."""
    names, _ = exported()
    asked = set().union(*(metrics_in(expression) for expression in [*(q.expression for q in ALL), *RECORDED]))
    shown = {name.removesuffix(end) for name in asked for end in ("", "_bucket", "_sum", "_count")}
    missing = {name for name in names if not name.endswith(("_bucket", "_sum", "_count"))} - shown
    # Requests that a shadow was not asked say that it has too little time, not how the service does.
    assert missing == {"model_shadow_dropped_total"}


def test_it_asks_for_labels_that_exist() -> None:
    _, labels = exported()
    theirs = {"job", "instance", "le", "alertname", "alertstate"}
    assert set().union(*(labels_in(query.expression) for query in ALL)) - labels - theirs == set()


def test_its_legends_name_labels_that_their_queries_keep() -> None:
    for panel in panels():
        for target in panel["targets"]:
            for label in (part.partition("}}")[0] for part in target["legendFormat"].split("{{")[1:]):
                assert label == "instance" or label in labels_in(target["expr"]) | {"model_name"}


def test_it_asks_for_rules_that_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = {name for query in ALL for name in re.findall(r"model_server:[a-z0-9_:]+", query.expression)}
    assert asked
    assert asked <= recorded


def test_every_panel_says_what_it_is_for() -> None:
    assert all(panel["title"] and panel["description"] for panel in panels())
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)


def test_no_panel_covers_another() -> None:
    everything = json.loads(FILE.read_text())["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    for one, other in itertools.combinations((panel["gridPos"] for panel in everything), 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above
        assert one["x"] + one["w"] <= 24


def test_it_asks_the_data_source_that_is_there() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    variables = {one["name"]: one for one in json.loads(FILE.read_text())["templating"]["list"]}
    assert variables["datasource"]["query"] == source["type"]
    assert source["isDefault"] is True
    asked = {json.dumps(target["datasource"]) for panel in panels() for target in [panel, *panel["targets"]]}
    assert asked == {json.dumps({"type": source["type"], "uid": "${datasource}"})}


def quality_of(model: str, metrics: dict[str, float], judged: str, **more: Any) -> dict[str, Any]:
    """A `/v1/quality` with a shadow and enough labels for a verdict on the last day."""
    versions = [
        {"version": version, "role": role, "rows": 9000, "labels": 600, "metrics": metrics, **more}
        for version, role in (("1", "champion"), ("2", "shadow"))
    ]
    windows = [{"window": window, "versions": versions} for window in ("1d", "7d")]
    windows.append({"window": "30d", "versions": [one | {"labels": 6000} for one in versions]})
    verdict = {"verdict": "better", "value": 0.1, "low": 0.05, "high": 0.15}
    comparison = {"champion": "1", "challenger": "2", "role": "shadow", "metrics": {judged: verdict}}
    return {"model": model, "windows": windows, "comparisons": [comparison]}


CLASSIFIED = {"accuracy": 0.9, "precision": 0.8, "recall": 0.7, "f1": 0.75, "roc_auc": 0.95}
CLASSIFIED |= {"log_loss": 0.3, "calibration_error": 0.02}
REGRESSED = {"rmse": 3.0, "mae": 2.0, "r2": 0.6}
ESTIMATE = {"accuracy": 0.88, "standard_error": 0.01}

QUALITY = {
    "/classified": quality_of("churn", CLASSIFIED, "accuracy", estimate=ESTIMATE),
    "/regressed": quality_of("price", REGRESSED, "mae"),
}


class Evaluated(Quiet):
    """Shows the quality of a classifier and of a regressor, as a service does after weeks of feedback."""

    def do_GET(self) -> None:
        """Answers."""
        self.answer(exposition(QUALITY[self.path]), media_type="text/plain; version=0.0.4")


@pytest.fixture(scope="module")
def prometheus(servers: list[Service], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One of the configuration that ships, which scrapes two servers in use, and more often than it would."""
    folder = tmp_path_factory.mktemp("prometheus")
    recorded = PROMETHEUS.with_name("rules.yaml").read_text()
    (folder / "rules.yaml").write_text(recorded.replace("interval: 1m", "interval: 1s"))
    settings: dict[str, Any] = yaml.safe_load(PROMETHEUS.read_text())
    settings["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    settings["scrape_configs"][0]["static_configs"] = [
        {"targets": [address_of(server) for server in servers]}
    ]
    settings["alerting"]["alertmanagers"][0]["static_configs"] = [{"targets": [f"127.0.0.1:{free_port()}"]}]
    evaluated = Double(Evaluated)
    settings["scrape_configs"] += [
        {
            "job_name": path,
            "metrics_path": path,
            "static_configs": [{"targets": [evaluated.url.removeprefix("http://")]}],
        }
        for path in QUALITY
    ]
    over = threading.Event()

    def ask() -> None:
        while not over.wait(0.05):
            for server in servers:
                server.predict(ROWS)
                server.http.post("/v1/predict", json={"instances": "none"})

    thread = threading.Thread(target=ask)
    with evaluated.running(), running_prometheus(folder, settings=settings) as running:
        thread.start()
        try:
            yield running
        finally:
            over.set()
            thread.join(60)


def ask(prometheus: Prometheus, expression: str) -> list[dict[str, Any]]:
    """What Grafana would get."""
    answer = httpx.get(f"{prometheus.url}/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"]["result"])


@pytest.mark.parametrize("expression", [query.expression for query in ALL])
def test_every_query_has_an_answer(prometheus: Prometheus, expression: str) -> None:
    """Two servers with a shadow have what any of them asks for."""

    def is_answered() -> bool:
        found = ask(prometheus, expression)
        return bool(found) and all(one["value"][1] != "NaN" for one in found)

    wait_until(is_answered, 40, "there are samples")


def test_it_shows_what_is_the_case(prometheus: Prometheus) -> None:
    shown = {query.panel: query.expression for query in ALL}
    expected = {
        "Servers up": [({}, 2.0)],
        "Servers ready": [({}, 2.0)],
        "Stale servers": [({}, 0.0)],
        "Servers by version": [
            ({"model_name": NAME, "model_version": "1"}, 2.0),
            ({"model_name": NAME, "model_version": "2"}, 2.0),
        ],
        "Share of requests with a server error": [({"model_name": NAME}, 0.0)],
    }

    def got() -> dict[str, list[tuple[dict[str, str], float]]]:
        answers = {panel: ask(prometheus, shown[panel]) for panel in expected}
        return {
            panel: sorted(((one["metric"], float(one["value"][1])) for one in found), key=str)
            for panel, found in answers.items()
        }

    wait_until(lambda: got() == expected, 40, "it shows two servers without errors, and two versions")
    # The servers are shared with other files of tests, whose errors are counters that stand still here.
    rising = [one for one in ask(prometheus, shown["Errors per second"]) if float(one["value"][1]) > 0]
    assert [one["metric"] for one in rising] == [{"error_type": "invalid_input"}]
