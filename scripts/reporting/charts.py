"""The charts of a feature as SVG: its bins, and its index over time."""

import datetime as dt
from collections.abc import Sequence
from html import escape
from typing import Any

from serving.monitoring.drift.statistics import MIN_ROWS, PSI_LIMIT

WIDTH = 330
"""Of a chart on a phone, so that its letters have their size."""

LABEL, BAR, ROW = 152, 128, 17
"""Width of a bin's name and of the longest bar; height of a bin."""

MAX_LABEL = 22
"""Characters of a bin's name that fit; a pointer shows all of it."""

HEIGHT, BOTTOM, LEFT = 64, 16, 30
"""Of the chart over time: its height, that of the times below it, and the width of the numbers beside it."""


def draw_bins(bins: Sequence[dict[str, Any]]) -> str:
    """Returns a bar for the share of each bin, now and in the reference; those without rows in both are left out.

    Args:
        bins: as in `/v1/drift`.
    """
    shown = [one for one in bins if one["now"] or one["reference"]]
    most = max((max(one["now"] or 0, one["reference"] or 0) for one in shown), default=1)
    parts = [f'<svg viewBox="0 0 {WIDTH} {ROW * len(shown)}" role="img" aria-label="Share of rows by bin">']
    for position, one in enumerate(shown):
        top, name = ROW * position, one["bin"]
        now, reference = one["now"] or 0, one["reference"] or 0
        short = name if len(name) <= MAX_LABEL else f"{name[: MAX_LABEL - 1]}…"
        parts.append(
            f"<g><title>{escape(name)}: {percent(now)} now, {percent(reference)} in the reference</title>"
            f'<text x="{LABEL - 8}" y="{top + 12}" text-anchor="end">{escape(short)}</text>'
            f'<rect class="reference" x="{LABEL}" y="{top + 2}" width="{BAR * reference / most:.1f}" height="6"/>'
            f'<rect class="now" x="{LABEL}" y="{top + 8}" width="{BAR * now / most:.1f}" height="6"/>'
            f'<text x="{WIDTH}" y="{top + 12}" text-anchor="end">{percent(now)}</text></g>'
        )
    return "".join([*parts, "</svg>"])


def draw_over_time(points: Sequence[dict[str, Any]], step_seconds: int) -> str:
    """Returns the line of an index over time; dots of few rows are hollow.

    Args:
        points: `time`, `rows` and `psi` of each part of the period that has rows.
        step_seconds: length of a part.
    """
    times = [dt.datetime.fromisoformat(point["time"]) for point in points]
    first, span = times[0], max((times[-1] - times[0]).total_seconds(), step_seconds)
    most = max(2 * PSI_LIMIT, *(point["psi"] for point in points))
    at = [
        (
            LEFT + 6 + (WIDTH - LEFT - 12) * (time - first).total_seconds() / span,
            4 + (HEIGHT - 4) * (1 - point["psi"] / most),
        )
        for time, point in zip(times, points, strict=True)
    ]
    limit = 4 + (HEIGHT - 4) * (1 - PSI_LIMIT / most)
    form = "%Y-%m-%d" if step_seconds >= 86_400 else "%Y-%m-%d %H:%M"
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + BOTTOM}" role="img" aria-label="Stability index over time">'
        f'<line class="axis" x1="{LEFT}" x2="{WIDTH}" y1="{HEIGHT}" y2="{HEIGHT}"/>'
        f'<line class="limit" x1="{LEFT}" x2="{WIDTH}" y1="{limit:.1f}" y2="{limit:.1f}"/>'
        f'<text class="soft" x="{LEFT - 4}" y="{limit + 4:.1f}" text-anchor="end">{PSI_LIMIT:g}</text>'
        f'<polyline class="line" points="{line}"/>'
    ]
    highest = max(point["psi"] for point in points)
    if highest > 2 * PSI_LIMIT:
        parts.append(f'<text class="soft" x="{LEFT - 4}" y="10" text-anchor="end">{number(highest)}</text>')
    for (x, y), time, point in zip(at, times, points, strict=True):
        kind = "few" if point["rows"] < MIN_ROWS else "now"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"><title>{time.strftime(form)}: '
            f"{number(point['psi'])} of {point['rows']:,} rows</title></circle>"
        )
    below = HEIGHT + BOTTOM - 3
    parts.append(f'<text class="soft" x="{LEFT}" y="{below}">{first.strftime(form)}</text>')
    if len(times) > 1:
        parts.append(
            f'<text class="soft" x="{WIDTH}" y="{below}" text-anchor="end">{times[-1].strftime(form)}</text>'
        )
    return "".join([*parts, "</svg>"])


def percent(share: float | None) -> str:
    """Returns a share as text."""
    return "–" if share is None else f"{number(100 * share)} %"


def number(value: float | None) -> str:
    """Returns a number with three digits."""
    return "–" if value is None else f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"
