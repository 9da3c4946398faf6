"""Says whether a challenger is better than the champion, worse, or not yet clear, by how much, and how many labels are missing.

    .venv/bin/python scripts/compare.py predictions/
    .venv/bin/python scripts/compare.py predictions/ --truth truths.csv --target churned
    .venv/bin/python scripts/compare.py predictions/ --truth truths.csv --target churned --champion 7 --challenger 8
    .venv/bin/python scripts/compare.py champion.csv challenger.csv --target churned --on customer --metric log_loss

One file has both versions: those of --champion and --challenger, else of the roles champion, and challenger or shadow. Of
two files, the first is the champion's. Rows that both versions answered are compared in pairs, else rows of the time in
which both answered. The verdict is valid however
often and whenever you look: with --confidence 0.95, at most one of 20 comparisons of equal versions ever ends in better or
worse. It assumes that rows are independent, and that chance assigned them to the versions.
Exit code 0 if the challenger is better, 1 if that is not clear yet, 3 if it is worse, 2 with one line on stderr if nothing
could be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.evaluating.columns import add_comparison_options, add_row_options  # noqa: E402  # needs the line above
from scripts.lifecycle.cli import OneLineParser, run  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

EXIT_CODES = {"better": 0, "not yet": 1, "worse": 3}


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:  # noqa: ARG001  # for `run`
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "file",
        type=Path,
        nargs="+",
        help="file or folder of predictions; or the champion's and the challenger's",
    )
    parser.add_argument("--champion", metavar="VERSION", help="version to beat")
    parser.add_argument("--challenger", metavar="VERSION", help="version to judge")
    add_comparison_options(parser)
    add_row_options(parser)
    return parser.parse_args(arguments, argparse.Namespace(by=[]))


def compare(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Compares the versions; returns exit code, facts and sentences.

    Raises:
        LifecycleError: a file cannot be read, or a version has no labels.
    """
    from scripts.evaluating.pairs import find_contenders, judge
    from scripts.evaluating.verdicts import verdict_facts, verdict_lines

    champion, challenger = find_contenders(options, settings)
    judged = judge(champion, challenger, options)
    how = (
        f"{judged.champion.n:,} rows that both answered, paired by {' and '.join(judged.paired_by)}"
        if judged.paired_by
        else f"{judged.champion.n:,} labels of the champion, {judged.challenger.n:,} of the challenger"
    )
    facts = verdict_facts(champion, challenger, judged, options.confidence)
    lines = verdict_lines(champion, challenger, judged, options.confidence, how)
    return EXIT_CODES[judged.verdict.outcome], facts, lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("compare.py", compare, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
