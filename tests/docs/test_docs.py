"""The pages have every setting, endpoint, error code and metric, as the code has them."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prometheus_client.metrics import MetricWrapperBase

from serving import errors
from serving.codecs.json import JsonDecoder
from serving.errors import PrepareError, ServingError
from serving.http import gateway
from serving.model.schema import parse_schema
from serving.monitoring import metrics, process, swaps
from serving.monitoring.drift.exposition import METRICS as DRIFT_METRICS
from serving.monitoring.feedback import metrics as feedback_metrics
from serving.monitoring.feedback.exposition import METRICS as QUALITY_METRICS
from serving.monitoring.prediction_log import metrics as log_metrics
from serving.monitoring.prediction_log.rows import HASHED, INPUT
from serving.monitoring.prediction_log.tables import OWN
from serving.settings import Settings, environment_name, unknown_variables
from tests.compose.dashboards import FILE as DASHBOARD
from tests.kubernetes.queries import rules
from tests.support.environment import ROOT

README = (ROOT / "README.md").read_text()
API, METRICS, SETTINGS = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("api", "monitoring", "settings")
)

METRIC = re.compile(r"`((?:model|process|python)_\w+)`")

UNITS = {"_seconds": " s", "_mb": " MB", "_percent": " %", "_days": " days"}


def setting_row(field: str) -> str:
    """The line of the settings table for a field."""
    info = Settings.model_fields[field]
    unit = next((unit for end, unit in UNITS.items() if field.endswith(end)), "")
    value = str(info.default).lower() if isinstance(info.default, bool) else info.default
    default = "–" if value in (None, "") else f"`{value}`{unit}"
    return f"| `{environment_name(field)}` | {default} | {info.description} |"


@pytest.mark.parametrize("field", Settings.model_fields)
def test_every_setting_is_documented_as_the_code_has_it(field: str) -> None:
    assert setting_row(field) in SETTINGS.splitlines()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_no_page_has_a_setting_that_the_code_does_not_have(page: Path) -> None:
    named = dict.fromkeys(re.findall(r"\b(SERVING_[A-Z_]+[A-Z])\b", page.read_text()), "")
    assert unknown_variables(named) == {}


def test_every_endpoint_is_documented() -> None:
    served = gateway.Gateway(None, None, None, 1)  # type: ignore[arg-type]
    for path in {*served._predictions, *served._pages}:
        assert f"`{path}`" in API or f" {path}`" in API, path


def all_subclasses(of: type) -> set[type]:
    return {of}.union(*(all_subclasses(child) for child in of.__subclasses__()))


def test_every_http_error_is_documented() -> None:
    rows = set(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", API, re.MULTILINE))
    raised = {
        (str(kind.status), kind.code)
        for kind in all_subclasses(ServingError)
        if kind not in (ServingError, errors.RequestError) and not issubclass(kind, PrepareError)
    }
    assert rows == raised


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = re.findall(r"── (\w+)(?: +(\d{3}))?", errors.__doc__ or "")
    kinds = {kind for kind in all_subclasses(ServingError) if kind.__module__ == errors.__name__}
    without_status = {errors.RequestError} | (kinds & all_subclasses(PrepareError))
    assert dict(drawn) == {
        kind.__name__: "" if kind in without_status else str(kind.status) for kind in kinds - {ServingError}
    }


def test_every_metric_is_documented() -> None:
    ours = {metrics.SCORE, *DRIFT_METRICS, *QUALITY_METRICS}
    modules = (metrics, process, swaps, log_metrics, feedback_metrics)
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, MetricWrapperBase):
            (family,) = value.describe()
            ours.add(family.name + ("_total" if family.type == "counter" else ""))
    assert len(ours) > 10
    assert (
        set(
            METRIC.findall(
                "\n".join(
                    re.findall(r"^\| (`.*?) \|", METRICS.partition("\n## Request logs")[0], re.MULTILINE)
                )
            )
        )
        == ours
    )


def test_every_rule_alert_and_panel_is_documented() -> None:
    recorded = {re.sub(r"(?<=_rate)\d+\w$", "5m", one["record"]) for one in rules() if "record" in one}
    assert set(re.findall(r"`(model_server:\w+:\w+)`", METRICS)) == recorded
    alerts = {one["alert"] for one in rules() if "alert" in one}
    assert set(re.findall(r"`(Model[A-Z]\w+)`", METRICS)) == alerts
    shown = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|$",
        METRICS.partition("| row | panels |\n|---|---|\n")[2].partition("\n\n")[0],
        re.MULTILINE,
    )
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert [row for row, _ in shown] == [one["title"] for one in panels if one["type"] == "row"]
    assert "; ".join(names for _, names in shown).split("; ") == [
        one["title"] for one in panels if one["type"] != "row"
    ]


def test_every_column_of_the_prediction_log_is_documented() -> None:
    _, _, section = METRICS.partition("\n## Prediction log\n")
    table = section[: section.index("\nTogether,")]
    rows = re.findall(r"^\| (`.*`) \| .* \| (.*) \|$", table, re.MULTILINE)
    own = [(f"`{field.name}`", field.metadata[b"meaning"].decode()) for field in OWN]
    assert rows[: len(own)] == own
    others = [f"`{INPUT}NAME`", f"`{HASHED}NAME`", "`model`, `version`, `date`"]
    assert [name for name, _ in rows[len(own) :]] == others


def test_no_file_names_a_package_registrys_host() -> None:
    for file in (ROOT / "requirements").iterdir():
        assert not re.search(r"https?://|--index-url|--find-links", file.read_text()), file


HELP = {
    file.name: re.findall(
        r"^ {4}(?:[A-Z_]+='.*' )?(\S*python \S+)", file.read_text().split('"""')[1], re.MULTILINE
    )
    for file in sorted((ROOT / "scripts").glob("[a-z]*.py"))
    if not file.name.startswith("demo_")
}


@pytest.mark.parametrize("script", HELP)
def test_the_commands_that_help_shows_work_in_a_fresh_shell(script: str) -> None:
    assert set(HELP[script]) == {f".venv/bin/python scripts/{script}"}


def test_frame_for_bentomls_client_is_json_with_its_dates_and_gaps() -> None:
    (conversion,) = re.findall(r"^dates = .*\nknown = .*", API, re.MULTILINE)
    days = ["2024-05-31", "2024-05-31T10:30:00.25", None]
    names = {
        "frame": pd.DataFrame(
            {
                "day": pd.to_datetime(days[:1] * 3),
                "moment": pd.to_datetime(days, format="ISO8601"),
                "zoned": pd.to_datetime(days, format="ISO8601").tz_localize("Europe/Berlin"),
                "number": [1.5, None, 3.0],
                "text": ["a", None, "c"],
            }
        )
    }
    exec(conversion, names)
    columns = [{"name": name, "type": "datetime", "required": True} for name in ("day", "moment", "zoned")]
    columns += [
        {"name": "number", "type": "double", "required": True},
        {"name": "text", "type": "string", "required": True},
    ]
    decoder = JsonDecoder(parse_schema(json.dumps(columns)), 10)
    records, _ = decoder.predict(json.dumps({"instances": names["known"].to_dict("records")}).encode())
    batch = decoder.batch(json.dumps(names["known"].to_numpy().tolist()).encode())
    for inputs in (records, batch):
        day, moment, zoned, number, _ = inputs.columns
        assert np.datetime_as_string(day, "D").tolist() == ["2024-05-31"] * 3
        assert np.datetime_as_string(moment, "ms").tolist() == [
            "2024-05-31T00:00:00.000",
            "2024-05-31T10:30:00.250",
            "NaT",
        ]
        assert np.datetime_as_string(zoned[:1], "h").tolist() == ["2024-05-30T22"]
        np.testing.assert_array_equal(number, [1.5, np.nan, 3.0])


def test_first_screen_has_the_two_commands() -> None:
    first = "\n".join(README.splitlines()[:15])
    assert "make serve" in first
    assert "make test" in first


def test_the_first_page_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_pictures_are_small_and_load_nothing() -> None:
    limits = {".svg": 60_000, ".png": 200_000}
    pictures = list((ROOT / "docs" / "pictures").iterdir())
    assert {picture.suffix for picture in pictures} == set(limits)
    for picture in pictures:
        content = picture.read_bytes()
        assert len(content) < limits[picture.suffix], picture.name
        if picture.suffix == ".svg":
            assert not re.search(rb"<script|@import|url\(|href", content)


def test_the_readme_shows_pictures_that_are_there() -> None:
    shown = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", README)
    assert "docs/pictures/promotion.svg" in [file for _, file in shown]
    for text, file in shown:
        assert text
        assert (ROOT / file).is_file()


def test_the_index_has_every_page_and_each_page_says_what_to_read_next() -> None:
    pages = {file.name for file in (ROOT / "docs").glob("*.md")}
    index = (ROOT / "docs" / "index.md").read_text()
    assert set(re.findall(r"^\| \[(\w+\.md)\]\(\1\) \|", index, re.MULTILINE)) == pages - {"index.md"}
    for name in pages:
        text = (ROOT / "docs" / name).read_text()
        assert re.search(r"^# .+\n\nFor ", text), f"{name} does not say whom it is for"
        assert re.search(r"^Next: ", text, re.MULTILINE), f"{name} does not say what to read next"
