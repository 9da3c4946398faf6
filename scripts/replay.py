"""Asks a version what callers asked the version in production, and says which answers change.

    .venv/bin/python scripts/replay.py 8 --since 24h
    .venv/bin/python scripts/replay.py 8 --since 7d --limit 50000 --by region --json
    .venv/bin/python scripts/replay.py 8 --since 7d --truth truths.csv --target churned

The questions are rows of the prediction log, a random sample of whole requests that is the same at each run; the answers
are compared with those in the log. The version is prepared and asked here, as a service does it, and no service notices.
If the truth is known, from feedback or a file, the script also says which version is better.
Exit code 0; 1 if the truth shows that the version is worse; 2 with one line on stderr if nothing could be compared.
"""

import argparse
import datetime as dt
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.evaluating.columns import add_comparison_options, add_truth_options  # noqa: E402  # needs the line above
from scripts.evaluating.log import add_folder_option, add_period_options, check_folder  # noqa: E402  # the same
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, FAILED, align, make_parser, open_model, run, teller  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

if TYPE_CHECKING:
    from scripts.replaying.replay import Replay

SINCE = "24h"
LIMIT = 10_000
MAX_REASONS = 3
MAX_TRANSITIONS = 10


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__ or "", settings)
    parser.add_argument("version", help="version to ask")
    parser.add_argument(
        "--champion", metavar="VERSION", help="version whose answers to compare with (that in production)"
    )
    add_folder_option(parser, settings)
    add_period_options(parser, SINCE)
    parser.add_argument(
        "--limit", type=int, default=LIMIT, metavar="ROWS", help="maximum rows of the sample (%(default)s)"
    )
    parser.add_argument(
        "--tolerance",
        type=parse_tolerance,
        default=1e-6,
        help="relative difference up to which numbers are equal (%(default)s)",
    )
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="also show the rows of each value of this input or column of the log separately; may be repeated",
    )
    add_truth_options(parser)
    add_comparison_options(parser)
    return parser.parse_args(arguments)


def parse_tolerance(text: str) -> float:
    """Returns a tolerance.

    Raises:
        argparse.ArgumentTypeError: it is no number from 0.
    """
    try:
        tolerance = float(text)
    except ValueError:
        tolerance = math.nan
    if not 0 <= tolerance < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0, such as 0.01")
    return tolerance


def replay(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Replays the log; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing can be compared.
    """
    folder = check_folder(options.folder)
    if options.limit < 1:
        raise LifecycleError(f"--limit: expected a number from 1, got {options.limit}")
    if (options.truth is None) != (options.target is None):
        raise LifecycleError("--truth and --target, the column of the truth, need each other")
    model = open_model(options, settings)
    model.check_version(options.version)
    champion = options.champion or model.current
    if champion is None:
        raise LifecycleError(f"{model.where} is not set; name the version to compare with (--champion)")
    model.check_version(champion)

    from scripts.replaying.replay import replay_log

    teller(options)(f"preparing version {options.version} as a service does")
    found = replay_log(folder, model, champion, options, settings)
    facts = found.facts
    code = FAILED if facts["truth"] and facts["truth"]["verdict"] == "worse" else DONE
    return code, facts, to_lines(found)


def to_lines(found: "Replay") -> list[str]:
    """Returns the sentences and tables."""
    facts = found.facts
    version, champion = facts["version"], facts["champion"]
    first, last = (dt.datetime.fromisoformat(facts[end]).strftime("%Y-%m-%d %H:%M") for end in ("from", "to"))
    n_logged, n_asked, changes = facts["rows_logged"], facts["rows_asked"], facts["changes"]
    sampled = f", a sample of {n_logged:,}" if n_asked < n_logged else ""
    lines = [
        f"{facts['model']} version {version} was asked {n_asked:,} rows that version {champion} answered from {first} to "
        f"{last} UTC{sampled}"
    ]
    if facts["incompatible"]:
        lines.append(
            f"version {version} rejects requests that version {champion} accepts: {facts['incompatible']}"
        )
    if facts["rejected"]:
        reasons = [f"{one['reason']} ({one['rows']:,})" for one in facts["rejections"][:MAX_REASONS]]
        more = len(facts["rejections"]) - len(reasons)
        lines.append(
            f"{_share(facts['rejected'], n_asked)} rows rejected: {'; '.join(reasons)}"
            + (f"; and {more} more reasons" if more > 0 else "")
        )
    lines.append(f"{_share(changes['changed'], changes['rows'])} {_what_changed(facts)}")
    lines += _differences(changes)
    if facts["transitions"]:
        rows = [
            (str(one["from"]), str(one["to"]), f"{one['rows']:,}")
            for one in facts["transitions"][:MAX_TRANSITIONS]
        ]
        lines += align([("from", "to", "rows"), *rows])
    if facts["slices"]:
        lines += align(
            [
                ("slice", "rows", "changed"),
                *(
                    (one["slice"], f"{one['rows']:,}", _share(one["changed"], one["rows"], of=""))
                    for one in facts["slices"]
                ),
            ]
        )
    return [*lines, *found.truth_lines, *([facts["warning"]] if facts["warning"] else [])]


def _share(n: int, n_rows: int, of: str = " of {:,}") -> str:
    return f"{n:,}{of.format(n_rows)} ({100 * n / n_rows:.2f} %)"


def _what_changed(facts: dict[str, Any]) -> str:
    match facts["answers"]:
        case "label":
            return "labels change"
        case "value":
            return f"numbers differ by more than {facts['tolerance']:g} of their size"
        case _:
            return "answers change"


def _differences(changes: dict[str, Any]) -> list[str]:
    lines = []
    if changes.get("mean_difference") is not None:
        lines.append(
            f"numbers: {changes['mean_difference']:+.4g} on average, {changes['mean_absolute_difference']:.4g} in magnitude, "
            f"{changes['largest_difference']:.4g} at most"
        )
    if changes.get("mean_probability_difference") is not None:
        lines.append(
            f"probabilities differ by {changes['mean_probability_difference']:.4g} on average, "
            f"{changes['largest_probability_difference']:.4g} at most"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("replay.py", replay, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
