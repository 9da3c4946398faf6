"""Prints how right predictions were, by version, role and slice, from their truths.

    .venv/bin/python scripts/evaluate.py predictions/
    .venv/bin/python scripts/evaluate.py predictions/ --truth truths.csv --target churned
    .venv/bin/python scripts/evaluate.py scored.csv --target churned --by region --plot calibration.svg

Predictions: CSV, Parquet, a folder of Parquet, or the prediction log, whose rows count at once. Truths: a file, joined by
request_id and row, or by key; or a column of the predictions; or, for the prediction log, the feedback that the service
received (SERVING_FEEDBACK_STORE). Of a truth that comes twice, the last counts. For rows without truth, the script estimates
the accuracy, and says how well the same estimate held on the newer half of the others.
Exit code 0; 2 with one line on stderr if nothing could be evaluated.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.evaluating.columns import add_row_options  # noqa: E402  # needs the line above
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, OneLineParser, align, run  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

if TYPE_CHECKING:
    from scripts.evaluating.groups import Group
    from serving.monitoring.quality.calibration import Calibration

METRICS = (
    *("accuracy", "precision", "recall", "f1", "log_loss", "roc_auc", "calibration_error"),
    *("rmse", "mae", "r2"),
)
"""In the order of the table."""


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:  # noqa: ARG001  # for `run`
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("file", type=Path, nargs=1, help="file or folder of predictions")
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="also evaluate the rows of each value of this column separately; may be repeated",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="write the calibration plot")
    add_row_options(parser)
    return parser.parse_args(arguments)


def evaluate(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Evaluates the predictions; returns exit code, facts and sentences.

    Raises:
        LifecycleError: a file cannot be read, or has no truth for a prediction.
    """
    from scripts.evaluating.groups import to_groups
    from scripts.evaluating.truths import read_rows
    from serving.monitoring.quality.answers import Classified
    from serving.monitoring.quality.calibration import calibrate

    predictions = read_rows(options.file[0], options, settings)
    groups = list(to_groups(predictions))
    if not any(len(group.known) for group in groups):
        raise LifecycleError(f"no prediction in {options.file[0]} has a truth{_in(options.target)}")
    calibrations = {
        group.name: found
        for group in groups
        if isinstance(group.known, Classified) and (found := calibrate(group.known)) is not None
    }
    described = [describe(group, options.by, calibrations.get(group.name)) for group in groups]
    lines = [
        *to_table(described),
        *(
            line
            for group, facts in zip(groups, described, strict=True)
            for line in to_sentences(group, facts)
        ),
    ]
    if predictions.n_unmatched:
        lines.append(f"{predictions.n_unmatched:,} truths match no prediction")
    if options.plot is not None:
        lines.append(write_plot(options.plot, calibrations))
    return DONE, {"groups": described, "unmatched_truths": predictions.n_unmatched}, lines


def _in(target: str | None) -> str:
    return f" in {target!r}" if target is not None else " yet"


def describe(group: "Group", by: Sequence[str], calibration: "Calibration | None") -> dict[str, Any]:
    """Returns the facts about a version in a role."""
    from scripts.evaluating.estimates import estimate
    from serving.monitoring.quality.answers import Classified
    from serving.monitoring.quality.metrics import score_classes
    from serving.monitoring.quality.slices import slices

    known = group.known
    found = [
        {"slice": f"{column} = {value}", "labels": int(mask.sum()), **measure(known.where(mask))}
        for column in by
        for value, mask in slices(group.rows[column][group.is_known].tolist())
    ]
    facts: dict[str, Any] = {
        "version": group.version or None,
        "role": group.role or None,
        "labels": len(known),
        **measure(known),
        "slices": found,
    }
    if isinstance(known, Classified):
        facts["classes"] = score_classes(known)
        facts["estimate"] = estimate(group, known)
    if calibration is not None:
        facts["calibration"] = {
            "of": calibration.what,
            "bins": [part._asdict() for part in calibration.bins],
        }
    return facts


def measure(answers: Any) -> dict[str, Any]:
    """Returns the metrics, with the calibration error of a classifier."""
    from serving.monitoring.quality.answers import Classified
    from serving.monitoring.quality.calibration import calibrate
    from serving.monitoring.quality.metrics import score

    metrics = score(answers)
    calibration = calibrate(answers) if isinstance(answers, Classified) else None
    if calibration is not None:
        metrics["calibration_error"] = calibration.error
    return {"metrics": metrics}


def to_table(described: Sequence[dict[str, Any]]) -> list[str]:
    """Returns the lines of the table: a line for each version in a role, and for each slice of it."""
    parts = [
        (facts, part) for facts in described for part in ({"slice": "all rows", **facts}, *facts["slices"])
    ]
    names = [name for name in METRICS if any(name in part["metrics"] for _, part in parts)]
    head = ("version", "role", "rows", "labels", *names)
    return align(
        [
            head,
            *(
                (
                    facts["version"] or "–",
                    facts["role"] or "–",
                    part["slice"],
                    f"{part['labels']:,}",
                    *(f"{part['metrics'][n]:.4g}" if n in part["metrics"] else "–" for n in names),
                )
                for facts, part in parts
            ),
        ]
    )


def to_sentences(group: "Group", facts: dict[str, Any]) -> list[str]:
    """Returns what is estimated of rows without truth."""
    estimated = facts.get("estimate")
    if not estimated:
        return []
    line = (
        f"{group.name}: {estimated['rows']:,} rows have no truth yet; their accuracy is estimated at "
        f"{estimated['accuracy']:.3f} ± {2 * estimated['standard_error']:.3f}"
    )
    check = estimated["check"]
    if check is None:
        return [line]
    verdict = "it held" if check["has_held"] else "it did not hold, so do not rely on it"
    return [
        f"{line} (the same estimate for the newer half of the labels was {check['estimate']:.3f}, the truth "
        f"{check['accuracy']:.3f}: {verdict})"
    ]


def write_plot(file: Path, calibrations: "dict[str, Calibration]") -> str:
    """Writes the calibration plot; returns a sentence.

    Raises:
        LifecycleError: there is nothing to plot, or the file cannot be written.
    """
    from scripts.evaluating.plot import draw_calibration

    if not calibrations:
        raise LifecycleError("--plot needs probabilities; name their column with --score")
    try:
        file.write_text(draw_calibration(calibrations), encoding="utf-8")
    except OSError as error:
        raise LifecycleError(f"{file}: {error.strerror or error}") from None
    return f"wrote {file}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("evaluate.py", evaluate, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
