"""The dashboard's queries, as Grafana sends them."""

import json
from typing import Any, NamedTuple

from tests.compose.configuring import GRAFANA

FILE = GRAFANA / "dashboards" / "model-server.json"


class Query(NamedTuple):
    """What one line of a panel shows."""

    panel: str
    expression: str


def panels() -> list[dict[str, Any]]:
    """Returns what shows something."""
    return [panel for panel in json.loads(FILE.read_text())["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    """Returns all queries, for every model, the quality of a day, and rates over ten seconds."""
    return [
        Query(
            panel["title"],
            target["expr"]
            .replace("$model", ".*")
            .replace("$window", "1d")
            .replace("$__rate_interval", "10s"),
        )
        for panel in panels()
        for target in panel["targets"]
    ]
