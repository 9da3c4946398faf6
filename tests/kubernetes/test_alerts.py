"""The rules are valid, fire when they should, and are the same wherever they are used."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

from tests.kubernetes.building import K8S, build, of_kind
from tests.kubernetes.queries import RULES, all_queries, canary_queries, rules
from tests.support.environment import ROOT

RUNBOOK = ROOT / "docs" / "runbook.md"

TESTS = RULES.with_name("rules_test.yaml")


def promtool(*arguments, folder=None):
    if not shutil.which("promtool"):
        missing = "promtool (Debian's package prometheus) is not installed"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    told = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, cwd=folder)
    assert told.returncode == 0, told.stdout + told.stderr


def test_the_rules_are_valid():
    promtool("check", "rules", str(RULES))


def test_the_rules_fire_when_they_should():
    promtool("test", "rules", str(TESTS))


def test_every_query_is_valid(tmp_path):
    groups = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(all_queries())]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": groups}]}))
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules() if "alert" in rule])
def test_every_alert_is_tried_where_it_fires_and_where_it_must_not(alert):
    cases = [
        case
        for test in yaml.safe_load(TESTS.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    outcomes = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == alert}
    assert outcomes == {True, False}


@pytest.mark.parametrize("alert", [rule["alert"] for rule in rules() if "alert" in rule])
def test_every_alert_says_what_to_do(alert):
    (rule,) = (rule for rule in rules() if rule.get("alert") == alert)
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["for"]
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{alert.lower()}"
    assert f"\n## {alert}\n" in RUNBOOK.read_text()


def test_the_runbook_has_no_alert_that_is_gone():
    assert set(re.findall(r"^## (\w+)$", RUNBOOK.read_text(), re.MULTILINE)) == {
        rule["alert"] for rule in rules() if "alert" in rule
    }


def test_kubernetes_has_the_same_rules():
    file = K8S / "components" / "monitoring" / "prometheusrule.yaml"
    ours = RULES.read_text().partition("\ngroups:")[2]
    theirs = file.read_text().partition("\n  groups:")[2]
    assert theirs.replace("\n  ", "\n") == ours, "run `make rules`"
    (built,) = of_kind(build("production", "monitoring"), "PrometheusRule")
    assert built["spec"] == yaml.safe_load(RULES.read_text())


COUNT = "model_prediction_latency_seconds_count"
BUCKET = "model_prediction_latency_seconds_bucket"


def series(name, pods, values, **labels):
    labels = {"namespace": "a", "rollouts_pod_template_hash": pods, "role": "champion"} | labels
    return {"series": name + "{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "}", "values": values}


def classes(pods, yes, no):
    """Rows by predicted class, so many a minute."""
    name = "model_predicted_class_total"
    return [
        series(name, pods, f"0+{yes}x20", predicted_class="yes"),
        series(name, pods, f"0+{no}x20", predicted_class="no"),
    ]


def latencies(pods, fast, all_):
    """Requests a minute, of which so many took up to 0.1 s and the rest up to 0.2 s."""
    return [
        series(BUCKET, pods, f"0+{fast}x20", le="0.1"),
        series(BUCKET, pods, f"0+{all_}x20", le="0.2"),
        series(BUCKET, pods, f"0+{all_}x20", le="+Inf"),
    ]


# By hand: 3 errors beside 97 answers; nobody failed; 0.2 s · 99 % = 0.198 s over 0.099 s; a share of 0.6 against 0.3.
CASES = {
    "errors of the canary": (
        "error-rate",
        [
            series(COUNT, "new", "0+97x20"),
            series(
                "model_prediction_errors_total", "new", "0+3x20", error_type="internal_error", status="500"
            ),
            series(COUNT, "old", "0+900x20"),
        ],
        0.03,
    ),
    "no errors at all": ("error-rate", [series(COUNT, "new", "0+97x20")], 0),
    "errors of the old pods, and of callers": (
        "error-rate",
        [
            series(COUNT, "new", "0+90x20"),
            series(
                "model_prediction_errors_total", "new", "0+10x20", error_type="invalid_input", status="422"
            ),
            series(
                "model_prediction_errors_total", "old", "0+50x20", error_type="internal_error", status="500"
            ),
        ],
        0,
    ),
    "no requests": ("error-rate", [series(COUNT, "old", "0+97x20")], None),
    "twice as slow": ("latency", [*latencies("new", 0, 100), *latencies("old", 100, 100)], 0.199 / 0.099),
    "as fast": ("latency", [*latencies("new", 100, 100), *latencies("old", 100, 100)], 1),
    "a class twice as often": (
        "predicted-class",
        [*classes("new", 600, 400), *classes("old", 3000, 7000)],
        0.3,
    ),
    "the same classes": ("predicted-class", [*classes("new", 300, 700), *classes("old", 3000, 7000)], 0),
    "too few rows to say": ("predicted-class", [*classes("new", 60, 20), *classes("old", 3000, 7000)], 0),
    "a regressor": ("predicted-class", [series(COUNT, "new", "0+97x20")], 0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_canary_is_judged_by_the_right_number(case, tmp_path):
    name, input_series, expected = CASES[case]
    query = canary_queries()[name]
    asked = {"expr": query, "eval_time": "15m", "exp_samples": []}
    if expected is not None:
        is_near = {"labels": "{}", "value": 1}
        asked |= {"expr": f"abs(({query}) - {expected}) < bool 1e-9", "exp_samples": [is_near]}
    test = {"interval": "1m", "input_series": input_series, "promql_expr_test": [asked]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": [test]}))
    promtool("test", "rules", "test.yaml", folder=tmp_path)
