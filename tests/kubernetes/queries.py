"""All PromQL that rules and manifests hold, and the metrics that it asks for."""

import re

import yaml

from tests.kubernetes.building import K8S, build, of_kind
from tests.support.environment import ROOT

RULES = ROOT / "monitoring" / "prometheus" / "rules.yaml"
ADAPTER = K8S / "components" / "requests-per-second" / "adapter-values.yaml"


def rules():
    """The recording and alerting rules."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def canary_queries():
    """The queries of the canary's analysis by name, for the namespace `a`, the pods `new` and the pods `old`."""
    (template,) = of_kind(build("production", "canary"), "AnalysisTemplate")
    values = {"{{args.namespace}}": "a", "{{args.canary}}": "new", "{{args.stable}}": "old"}
    queries = {}
    for metric in template["spec"]["metrics"]:
        query = metric["provider"]["prometheus"]["query"]
        for placeholder, value in values.items():
            query = query.replace(placeholder, value)
        queries[metric["name"]] = query
    return queries


def keda_queries(overlay="production"):
    """The queries that KEDA scales by."""
    (scaled,) = of_kind(build(overlay, "keda"), "ScaledObject")
    return [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]


def adapter_query():
    """The query of prometheus-adapter, as it asks it for two pods."""
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["custom"]
    query = rule["metricsQuery"].replace("<<.Series>>", rule["seriesQuery"].partition("{")[0])
    return query.replace("<<.LabelMatchers>>", 'namespace="a",pod=~"one|two"').replace("<<.GroupBy>>", "pod")


def all_queries():
    """All of them."""
    return [rule["expr"] for rule in rules()] + [*canary_queries().values(), *keda_queries(), adapter_query()]


def metrics_in(query):
    """The metrics that a query names; what we record ourselves is not among them."""
    bare = re.sub(r'(__name__=~)?"([^"]*)"', lambda found: found[2] if found[1] else "", query)
    bare = re.sub(r"\b(by|on|ignoring|group_left|group_right) \([^)]*\)", "", bare)
    return set(re.findall(r"(?<!:)\bmodel_[a-z0-9_]+\b(?!:|\s*(?:=|!=))", bare))


def labels_in(query):
    """The labels that a query selects or groups by."""
    selected = re.findall(r"([a-z_]+)\s*(?:=~|!=|!~|=)\s*\"", query)
    grouped = [label for by in re.findall(r"\bby \(([^)]*)\)", query) for label in re.split(r",\s*", by)]
    return {*selected, *grouped} - {"__name__"}
