"""Writes a page that compares the rows of the prediction log with the reference of the model that answered them.

    .venv/bin/python scripts/drift_report.py --folder log                    # the last 24 hours, each version
    .venv/bin/python scripts/drift_report.py --since 30d --version 3 --out drift-3.html
    .venv/bin/python scripts/drift_report.py --since 7d --json

Same bins, statistics and verdicts as /v1/drift, over any period, and by the day or hour. The page is one HTML file that
loads nothing and runs no script. The reference is that of the prepared model under BENTOML_HOME; otherwise the version is
prepared from the registry. Also counts rows that are not in a Parquet file yet.
Exit code 0; 2 with one line on stderr if no version can be compared.
"""

import argparse
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.evaluating.log import (  # noqa: E402  # needs the line above
    add_folder_option,
    add_period_options,
    check_folder,
)
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, OneLineParser, run  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

if TYPE_CHECKING:
    from scripts.reporting.counting import Tallied

DEFAULT_PERIOD = "24h"


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add_folder_option(parser, settings)
    parser.add_argument("--name", help="model (all)")
    parser.add_argument("--version", help="its version (all)")
    add_period_options(parser)
    parser.set_defaults(since=DEFAULT_PERIOD)
    parser.add_argument(
        "--out", type=Path, default=Path("drift.html"), metavar="FILE.html", help="page (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    options = parser.parse_args(arguments)
    options.until = options.until or dt.datetime.now(dt.UTC)
    return options


def report(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Writes the page; returns exit code, facts and sentences.

    Raises:
        LifecycleError: there is nothing to compare, or the page cannot be written.
    """
    from scripts.reporting.page import draw_page

    folder = check_folder(options.folder)
    if options.since >= options.until:
        raise LifecycleError("--since must be before --until")
    if not options.out.absolute().parent.is_dir():
        raise LifecycleError(f"--out: {options.out.parent} is no folder")
    tallied, left_out = count(folder, options, settings)
    if not tallied:
        raise LifecycleError(next(iter(left_out.values()), nothing_in(options)))
    facts: dict[str, Any] = {
        "since": options.since.astimezone(dt.UTC).isoformat(timespec="seconds"),
        "until": options.until.astimezone(dt.UTC).isoformat(timespec="seconds"),
        "models": [
            {
                "name": name,
                "version": version,
                **one.describe(n_inputs=settings.monitored_features, shows_values=settings.publish_examples),
            }
            for (name, version), one in tallied.items()
        ],
        "left_out": [
            {"name": name, "version": version, "why": why} for (name, version), why in left_out.items()
        ],
    }
    try:
        options.out.write_bytes(draw_page(facts).encode(errors="replace"))
    except OSError as error:
        raise LifecycleError(f"{options.out}: {error.strerror or error}") from None
    facts["page"] = str(options.out)
    return DONE, facts, to_sentences(facts)


def count(
    folder: Path, options: argparse.Namespace, settings: Settings
) -> "tuple[dict[tuple[str, str], Tallied], dict[tuple[str, str], str]]":
    """Counts the log; returns the counts by model and version, and why others have none.

    Raises:
        LifecycleError: it cannot be read.
    """
    import pyarrow as pa

    from scripts.reporting.counting import DAY, HOUR, HOURLY_DAYS, Tallied
    from scripts.reporting.references import find_reference
    from serving.monitoring.drift.reference import MAX_FEATURES
    from serving.monitoring.prediction_log.reading import Period, read_tables

    is_short = options.until - options.since < dt.timedelta(days=HOURLY_DAYS)
    tallied: dict[tuple[str, str], Tallied] = {}
    left_out: dict[tuple[str, str], str] = {}
    try:
        for table in read_tables(
            folder,
            model=options.name,
            version=options.version,
            period=Period(options.since, options.until),
        ):
            if not table.num_rows:
                continue
            key = table["model"][0].as_py(), table["version"][0].as_py()
            if key not in tallied and key not in left_out:
                try:
                    found = find_reference(*key, settings)
                except LifecycleError as error:
                    left_out[key] = str(error)
                else:
                    features = found.reference.monitored(settings.monitored_features or MAX_FEATURES)
                    tallied[key] = Tallied(found.schema, found.reference, features, HOUR if is_short else DAY)
            if key in tallied:
                tallied[key].add(table)
    except (OSError, pa.ArrowException) as error:
        raise LifecycleError(f"the prediction log cannot be read: {' '.join(str(error).split())}") from error
    return dict(sorted(tallied.items())), left_out


def nothing_in(options: argparse.Namespace) -> str:
    """Returns the error for a log without rows to compare."""
    wanted = "".join(
        f" of {what} {value!r}"
        for what, value in (("model", options.name), ("version", options.version))
        if value is not None
    )
    since, until = (f"{one.astimezone(dt.UTC):%Y-%m-%d %H:%M}" for one in (options.since, options.until))
    return f"{options.folder} has no rows{wanted} between {since} and {until} UTC; choose another period with --since and --until"


def to_sentences(facts: dict[str, Any]) -> list[str]:
    """Returns the outcome in words."""
    lines = [
        f"{one['name']} version {one['version']}: {one['rows']:,} rows against {one['reference']['rows']:,} of the "
        f"reference; drifted: {', '.join(one['drifted']) or 'nothing'}"
        + (f" ({one['note']})" if one["note"] else "")
        for one in facts["models"]
    ]
    return [
        *lines,
        *(f"warning: {one['why']}" for one in facts["left_out"]),
        f"wrote {facts['page']}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("drift_report.py", report, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
