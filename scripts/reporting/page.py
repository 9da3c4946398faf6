"""The page: one HTML file without scripts. Names come from models and callers: each is escaped."""

import base64
import hashlib
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from scripts.reporting.charts import draw_bins, draw_over_time, number, percent
from serving.monitoring.drift.statistics import MIN_ROWS, PSI_LIMIT, SIGNIFICANCE

STYLE = Path(__file__).with_name("page.css")

STEPS = {3600: "hour", 86_400: "day"}


def draw_page(facts: dict[str, Any]) -> str:
    """Returns the page.

    Args:
        facts: what `drift_report.py --json` prints.
    """
    style = STYLE.read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    names = ", ".join(f"{one['name']} version {one['version']}" for one in facts["models"])
    period = " to ".join(f"{facts[end][:16].replace('T', ' ')}" for end in ("since", "until"))
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            f"<title>Drift of {escape(names)}</title>",
            f'<link rel="icon" href="data:,">\n<style>{style}</style>\n</head>\n<body>\n<main>',
            f"<h1>Drift of {escape(names)}</h1>",
            f'<p class="soft">Rows answered from {period} UTC, against the reference that came with the model.</p>',
            *(part for model in facts["models"] for part in (*_title(model, facts), *_model(model))),
            *(f'<p class="warn">{escape(one["why"])}</p>' for one in facts["left_out"]),
            "</main>\n</body>\n</html>\n",
        ]
    )


def _title(model: dict[str, Any], facts: dict[str, Any]) -> Iterator[str]:
    if len(facts["models"]) > 1:
        yield f"<h2>{escape(model['name'])} version {escape(model['version'])}</h2>"


def _model(model: dict[str, Any]) -> Iterator[str]:
    features, reference = model["features"], model["reference"]
    roles = ", ".join(f"{n:,} as {role}" for role, n in model["roles"].items())
    yield (
        f"<p>{model['rows']:,} rows ({escape(roles)}) against {reference['rows']:,} of "
        f"{'the sample of training rows' if reference['is_sample'] else 'the input example'}.</p>"
    )
    if model["drifted"]:
        drifted = ", ".join(model["drifted"])
        yield f'<p class="bad"><b>{len(model["drifted"])} of {len(features)} drifted: {escape(drifted)}</b></p>'
    else:
        yield f'<p class="{"warn" if model["note"] else "good"}"><b>0 of {len(features)} inputs and outputs drifted</b></p>'
    if model["note"]:
        yield f'<p class="warn">{escape(model["note"])}</p>'
    yield (
        f'<p class="soft">The rule, as for /v1/drift: the population stability index (PSI) is above {PSI_LIMIT:g}, chance '
        f"alone would rarely make it that large (Benjamini–Hochberg over these {len(features)}, {percent(SIGNIFICANCE)} false "
        f"discoveries), and there are at least {MIN_ROWS} rows.</p>"
    )
    yield (
        '<p class="soft"><span class="key reference"></span>reference<span class="key now"></span>now. '
        f"The line is the PSI by the {STEPS[model['step_seconds']]} in UTC; a hollow dot has fewer than {MIN_ROWS} rows.</p>"
    )
    yield '<div class="grid">'
    for feature in features:
        yield _card(feature, model["step_seconds"])
    yield "</div>"
    if model["not_compared"]:
        yield f"<p><b>{len(model['not_compared'])} inputs are not compared:</b></p><ul>"
        ordered = sorted(model["not_compared"], key=lambda one: one["why"])
        for why, inputs in groupby(ordered, key=lambda one: one["why"]):
            names = ", ".join(one["input"] for one in inputs)
            yield f"<li>{escape(names)}: {escape(why)}</li>"
        yield "</ul>"


def _card(feature: dict[str, Any], step_seconds: int) -> str:
    has_drifted = feature["has_drifted"]
    entries = "".join(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in _entries(feature))
    return (
        f'<section class="card{" bad-edge" if has_drifted else ""}">'
        f'<h3>{escape(feature["feature"])} <span class="soft">{feature["kind"]}</span></h3>'
        f'<p class="{"bad" if has_drifted else "soft"}">{escape(explain(feature))}</p>'
        f"{draw_bins(feature['bins'])}{draw_over_time(feature['over_time'], step_seconds)}<dl>{entries}</dl></section>"
    )


def explain(feature: dict[str, Any]) -> str:
    """Returns the verdict with its reason.

    Args:
        feature: as in `/v1/drift`.
    """
    psi, chance, n_rows = feature["psi"], feature["psi_by_chance"], feature["rows"]
    if feature["has_drifted"]:
        return (
            f"Drifted: PSI {number(psi)} is above {PSI_LIMIT:g}; chance alone makes up to {number(chance)}."
        )
    if psi <= PSI_LIMIT:
        return f"No drift: PSI {number(psi)} is not above {PSI_LIMIT:g}."
    if n_rows < MIN_ROWS:
        return f"Not called drift: PSI {number(psi)} is above {PSI_LIMIT:g}, but of {n_rows} rows; {MIN_ROWS} are needed."
    return (
        f"Not called drift: PSI {number(psi)} is above {PSI_LIMIT:g}, but the reference is so small that chance alone "
        "may make it that large."
    )


def _entries(feature: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "rows", f"{feature['rows']:,}"
    yield "PSI (by chance up to)", f"{number(feature['psi'])} ({number(feature['psi_by_chance'])})"
    yield "Jensen–Shannon distance", number(feature["js_distance"])
    yield "total variation distance", number(feature["total_variation"])
    if "ks" in feature:
        ks = feature["ks"]
        yield (
            f"Kolmogorov–Smirnov (p), {ks['rows']:,} random rows",
            f"{number(ks['statistic'])} ({number(ks['p_value'])})",
        )
    for name, what in (
        ("missing_ratio", "missing"),
        ("unknown_ratio", "unknown category"),
        ("out_of_range_ratio", "outside the range"),
    ):
        if name in feature:
            yield (
                f"{what} (reference)",
                f"{percent(feature[name]['now'])} ({percent(feature[name]['reference'])})",
            )
    if "mean" in feature:
        yield "mean (reference)", f"{number(feature['mean']['now'])} ({number(feature['mean']['reference'])})"
