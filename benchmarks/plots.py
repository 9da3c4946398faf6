"""Plots a run's results from its JSON file, in the environment of `requirements/bench.txt`.

python plots.py RESULTS_JSON FOLDER NAME
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import NullFormatter

COLOURS = {"project": "#d1495b", "peer": "#5b7f95", "floor": "#c9c9c9"}
FORM_COLOURS = {"in process": "#444444", "json": "#5b7f95", "npy": "#edae49", "arrow": "#d1495b"}
OTHER_COLOURS = ("#d1495b", "#d1495b", "#edae49")
MODEL = "forest"

Run = dict[str, Any]


def load(case: str, measure: str) -> Callable[[Run], float | None]:
    """Returns a function that reads a measure of a case with clients from a server's run."""
    return lambda run: run["loads"].get(case, {}).get(measure)


def memory(run: Run) -> float | None:
    """Returns the resident memory of the largest process."""
    return run["memory"]["largest_process_mb"] if run["memory"] else None


def bulk(run: Run) -> float | None:
    """Returns the milliseconds of 10,000 rows as JSON."""
    found = run["bulks"].get("rows-10000-json")
    return found["median_ms"] if found else None


PANELS: tuple[tuple[str, Callable[[Run], float | None], str], ...] = (
    ("1 client: p50, ms", load("clients-1", "p50_ms"), "log"),
    ("32 clients: requests/s", load("clients-32", "requests_per_second"), "log"),
    ("32 clients: CPU per request, ms", load("clients-32", "cpu_ms_per_request"), "log"),
    ("10,000 rows as JSON, ms", bulk, "linear"),
    ("start to ready, s", lambda run: run["start_seconds"], "linear"),
    ("memory of the largest process, MB", memory, "linear"),
)


def draw_servers(results: dict[str, Any], file: Path) -> None:
    """Draws one panel of bars per measure, for the random forest."""
    servers = [server for server in results["servers"].values() if MODEL in server["models"]]
    if not servers:
        return
    figure, axes = plt.subplots(2, 3, figsize=(16, 0.36 * len(servers) * 2 + 2.2), layout="constrained")
    for axis, (title, measure, scale) in zip(axes.flat, PANELS, strict=True):
        values = [measure(server["models"][MODEL]) for server in servers]
        names = [server["name"] for server in servers]
        bars = axis.barh(names, [v or 0 for v in values], color=[COLOURS[s["kind"]] for s in servers])
        axis.bar_label(bars, [bar_text(value) for value in values], padding=3)
        axis.set_title(title, fontsize=11)
        axis.set_xscale(scale)
        axis.margins(x=0.2)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(axis="x", labelsize=8)
        if axis not in axes[:, 0]:
            axis.set_yticklabels([])
    machine = results["machine"]
    figure.suptitle(
        f"Churn pipeline, random forest of 100 trees, one worker each ({machine['processor']}, "
        f"{machine['cores']} cores)"
    )
    figure.savefig(file, dpi=110)
    print(f"plotted: {file.name}")


def bar_text(value: float | None) -> str:
    """Returns the label at the end of a bar."""
    if value is None:
        return "failed"
    return f"{value:,.3g}" if value < 1_000 else f"{value:,.0f}"


ONE_CLIENT = ("in process, 1 row, ms", "1 client, p50 ms", "1 client, p99 ms")
GROWTH_PANELS = (
    ("ms, 1 client with 1 row", ONE_CLIENT, "log"),
    ("requests/s, 32 clients", ("32 clients, requests/s",), "linear"),
    ("ms, 1,000 rows", ("in process, 1000 rows, ms", "arrow, 1000 rows, ms"), "log"),
    ("MB, largest process", ("largest process, MB",), "linear"),
)
"""For columns and trees: label of the vertical axis, measures drawn together, scale."""

BY_ROWS = ("in process, ms", "json, ms", "npy, ms", "arrow, ms")


def draw_growth(results: dict[str, Any], file: Path) -> None:
    """Draws this project's cost against rows (one wide panel), columns and trees (four panels each)."""
    growth = results["growth"]
    if not any(growth.values()):
        return
    layout: list[Any] = [["rows"] * 4, [f"columns{i}" for i in range(4)], [f"trees{i}" for i in range(4)]]
    figure, axes = plt.subplot_mosaic(layout, figsize=(17, 12), layout="constrained")
    draw_curves(axes["rows"], growth.get("rows", []), BY_ROWS)
    axes["rows"].set(xlabel="rows of a request", ylabel="ms", yscale="log")
    for name in ("columns", "trees"):
        for position, (label, measures, scale) in enumerate(GROWTH_PANELS):
            axis = axes[f"{name}{position}"]
            draw_curves(axis, growth.get(name, []), measures)
            axis.set(xlabel=name, ylabel=label, yscale=scale)
            if scale == "linear":
                axis.set_ylim(bottom=0)
    for axis in axes.values():
        axis.set_xscale("log")
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_formatter("{x:,g}")
            side.set_minor_formatter(NullFormatter())
    figure.suptitle("How this project's cost grows")
    figure.savefig(file, dpi=100)
    print(f"plotted: {file.name}")


def draw_curves(axis: Any, points: list[dict[str, Any]], measures: Sequence[str]) -> None:
    """Draws one line per measure against the sizes."""
    for measure in measures:
        first = measure.partition(",")[0]
        axis.plot(
            [point["size"] for point in points],
            [point["measures"][measure] for point in points],
            marker="o",
            label=measure.removesuffix(", ms").removesuffix(" ms"),
            color=FORM_COLOURS.get(first, OTHER_COLOURS[measures.index(measure) % 3]),
            linestyle="--" if first == "in process" else "-",
        )
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    if points:
        axis.legend(fontsize=8, frameon=False)


def main() -> None:
    """Draws both plots into the results' folder."""
    results = json.loads(Path(sys.argv[1]).read_text())
    folder, name = Path(sys.argv[2]), sys.argv[3]
    draw_servers(results, folder / f"{name}.png")
    draw_growth(results, folder / f"{name}-growth.png")


if __name__ == "__main__":
    main()
