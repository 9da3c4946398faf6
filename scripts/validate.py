"""Compares a version's answers with a file of right answers, and with those of the version in production.

    .venv/bin/python scripts/validate.py 7 --data recent.csv --target churn --min accuracy=0.8 --max-drop roc_auc=0.01
    .venv/bin/python scripts/validate.py 7 --data recent.csv --target churn --min f1=0.7 --by region --json

Metrics: accuracy, f1, log_loss, roc_auc; r2, rmse, mae. It warns if the file has rows that a version was trained on, as
far as the rows logged with it show. Exit code 0 if all thresholds are met, 1 if one is not, 2 with one line on stderr if
nothing could be compared.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.cli import DONE, FAILED, align, make_parser, open_model, run  # noqa: E402  # the same
from scripts.lifecycle.validation_record import Results  # noqa: E402  # the same
from scripts.training.column_options import add_format_options  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

if TYPE_CHECKING:
    import pandas as pd

    from scripts.lifecycle.predictions import Answers
    from scripts.lifecycle.validation_record import Check
    from scripts.training.table import CsvFile


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = make_parser(__doc__ or "", settings)
    parser.add_argument("version", help="version to validate")
    add_check_options(parser, required=True)
    return parser.parse_args(arguments)


def add_check_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds the options for data and thresholds."""
    parser.add_argument("--data", type=Path, required=required, help="CSV file with the right answers")
    parser.add_argument("--target", required=required, help="column of the right answers")
    add_format_options(parser)
    for option, what in (
        ("--min", "minimum of a metric"),
        ("--max", "maximum of a metric"),
        ("--max-drop", "how much worse than the version in production a metric may be"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar="METRIC=NUMBER", help=f"{what}; may be repeated"
        )
    parser.add_argument(
        "--by", metavar="COLUMN", help="also judge the rows of each value of this column separately"
    )


def validate(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Validates the version; returns exit code, facts and sentences.

    Raises:
        LifecycleError: the versions or the file cannot be used.
    """
    from scripts.lifecycle.predictions import answer_rows
    from scripts.lifecycle.scoring import WHOLE, Rules, check_rules, judge, parse_thresholds

    rules = Rules(*(parse_thresholds(texts) for texts in (options.min, options.max, options.max_drop)))
    csv, target = read_rows(options)
    if not any(rules):
        raise LifecycleError("there is nothing to check; give --min, --max or --max-drop")
    rows = csv.rows
    slices = slices_of(rows, options.by)
    model = open_model(options, settings)
    model.check_version(options.version)
    new = answer_rows(settings, model.name, options.version, csv)
    old = None
    if model.current is not None and model.current != options.version:
        old = answer_rows(settings, model.name, model.current, csv)
    scores = score_slices(new, target, slices)
    before = score_slices(old, target, slices) if old else {}
    if old is not None:
        before_name = f"version {old.version}"
    elif model.current is None:
        before_name = f"{model.where} is not set, so there is nothing to compare with"
    else:
        before_name = (
            f"version {options.version} is itself in production, so there is nothing to compare with"
        )
    check_rules(rules, scores[WHOLE], before.get(WHOLE), before_name)
    checks = judge(scores, before, rules)
    results = Results(options.data.name, len(rows), old.version if old else None, checks)
    warnings = [
        answers.overlap.describe(answers.version, options.data.name)
        for answers in (new, old)
        if answers is not None and answers.overlap is not None
    ]
    is_met = all(check.is_met for check in checks)
    facts = {
        "model": model.name,
        "version": options.version,
        "in_production": model.current,
        "scores": scores,
        "before": before,
        "is_met": is_met,
        "warnings": warnings,
        **msgspec.to_builtins(results),
    }
    head = f"{model.name} version {options.version} on {results.summary}"
    unchecked = [f"{before_name}: --max-drop was not checked"] if rules.max_drop and old is None else []
    return DONE if is_met else FAILED, facts, [head, *to_table(checks), *warnings, *unchecked]


def read_rows(options: argparse.Namespace) -> "tuple[CsvFile, pd.Series]":
    """Returns the rows that have a right answer, and the answers.

    Raises:
        LifecycleError: the file cannot be used.
    """
    from scripts.training.table import read_csv, split_target

    csv = read_csv(options.data, options.sep, options.decimal)
    table = split_target(csv.rows, options.target)
    as_written = csv.as_written[csv.rows[options.target].notna()].reset_index(drop=True)
    return csv._replace(rows=table.inputs, as_written=as_written), table.target


def slices_of(rows: "pd.DataFrame", column: str | None) -> "dict[str, pd.Series]":
    """Returns masks of all rows, and of the rows of each value of a column that enough rows have.

    Raises:
        LifecycleError: there is no such column.
    """
    import pandas as pd

    from scripts.lifecycle.scoring import MIN_SLICE_ROWS, WHOLE
    from scripts.training.column_options import no_column

    slices = {WHOLE: pd.Series(True, index=rows.index)}
    if column is None:
        return slices
    if column not in rows:
        raise LifecycleError(f"--by: {no_column(column, rows.columns)}")
    for value, labels in rows.groupby(column, dropna=False).groups.items():
        if len(labels) >= MIN_SLICE_ROWS:
            slices[f"{column} = {value}"] = pd.Series(rows.index.isin(labels), index=rows.index)
    return slices


def score_slices(
    answers: "Answers", target: "pd.Series", slices: "dict[str, pd.Series]"
) -> dict[str, dict[str, float]]:
    """Returns the metrics of each slice.

    Raises:
        LifecycleError: the right answers are of another type than the version's.
    """
    from scripts.lifecycle.connection import reason
    from scripts.lifecycle.scoring import score_output
    from serving.runtime import Output

    def part(array: Any, mask: Any) -> Any:
        return array[mask] if array is not None else None

    scores = {}
    for where, of in slices.items():
        mask = of.to_numpy()
        output = Output(
            *(part(getattr(answers.output, f), mask) for f in ("labels", "probabilities", "values"))
        )
        try:
            scores[where] = score_output(target[of], output, answers.classes)
        except (ValueError, TypeError) as error:
            raise LifecycleError(
                f"the right answers in {target.name!r} cannot be compared with those of version {answers.version}: "
                f"{reason(error)}"
            ) from None
    return scores


def to_table(checks: "Sequence[Check]") -> list[str]:
    """Returns the lines of a table."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.4g}"

    rows = [("where", "metric", "version", "production", "must be", "")]
    rows += [
        (c.where, c.metric, number(c.value), number(c.before), c.rule, "met" if c.is_met else "NOT MET")
        for c in checks
    ]
    return align(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("validate.py", validate, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
