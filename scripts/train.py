"""Trains a model on a CSV file, registers it in MLflow with all that serving needs, and promotes it.

    python scripts/train.py --data customers.csv --target churn --name churn --promote
    python scripts/train.py --promote            # a generated sample, to look around

Exit code 0 when it is done, 2 with one line on stderr when it cannot be.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.training import TrainingError  # noqa: E402  # needs the line above
from scripts.training.registration import (  # noqa: E402  # the same
    Trained,
    check_names,
    connect,
    has_version,
    register,
)
from serving.settings import Settings, SettingsError, load_settings  # noqa: E402  # the same

if TYPE_CHECKING:
    from scripts.training.table import Table

HELD_OUT_RATIO = 0.2


class OneLineParser(argparse.ArgumentParser):
    """Tells a mistake in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Raises what `main` prints."""
        raise TrainingError(f"{message} (--help lists the options)")


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line; the environment's settings are the defaults."""
    parser = OneLineParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="a CSV file; without it a sample is generated")
    parser.add_argument("--target", help="the column to predict")
    parser.add_argument("--name", default=settings.model_name, help="the registered model (%(default)s)")
    parser.add_argument("--task", choices=("classification", "regression"), help="else the target decides")
    parser.add_argument("--model", choices=("forest", "linear"), default="forest", help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample, the split and the forest (0)")
    parser.add_argument("--promote", action="store_true", help="let the alias point at the new version")
    parser.add_argument("--alias", default=settings.model_alias, help="the alias to set (%(default)s)")
    parser.add_argument("--if-missing", action="store_true", help="do nothing if such a model is registered")
    options = parser.parse_args(arguments)
    if options.data is not None and options.target is None:
        parser.error("--data needs --target, the column to predict")
    if options.data is None and options.target is not None:
        parser.error("--target needs --data, the file that has this column")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        settings = load_settings()
        options = parse_arguments(arguments, settings)
        uri, timeout_seconds = settings.tracking_uri, settings.registry_timeout_seconds
        if options.if_missing and has_version(uri, options.name, timeout_seconds):
            say(f"{options.name} is registered already; nothing to train")
            return 0
        alias = options.alias if options.promote else None
        check_names(options.name, alias)
        table, data = read_table(options)
        client = connect(uri, timeout_seconds)
        version = register(client, options.name, train(table, data, options), alias)
    except (TrainingError, SettingsError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    say(f"registered: {options.name} version {version}")
    if alias:
        say(f"promoted: {options.name}@{alias} is version {version} now")
    say(f"next: {next_command(settings, options.name, version, alias)}")
    return 0


def train(table: "Table", data: str, options: argparse.Namespace) -> Trained:
    """Decides, fits and measures; tells the terminal what it found."""
    from sklearn.model_selection import train_test_split

    from preprocessing import preprocess
    from scripts.training.columns import column_kinds, ignored_columns, make_signature
    from scripts.training.pipeline import (
        build_pipeline,
        choose_task,
        output_column,
        score,
        score_baseline,
        target_for_task,
    )
    from scripts.training.reference import example_rows, reference_instances

    task, why = choose_task(table.target)
    if options.task:
        task, why = options.task, "as --task says"
    target = target_for_task(table.target, task)
    say(f"task: {task} of {target.name!r} ({why})")

    try:
        kinds = column_kinds(preprocess(table.inputs))
    except (ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"preprocessing.py: {error}") from error
    say(f"features: {len(kinds.numeric)} numeric, {len(kinds.text)} text")
    if kinds.identifiers:
        say(f"accepted and ignored, as identifiers: {', '.join(kinds.identifiers)}")
    if kinds.constant:
        say(f"accepted and ignored, as one value throughout: {', '.join(kinds.constant)}")

    inputs, held_out, target, held_out_target = train_test_split(
        table.inputs,
        target,
        test_size=HELD_OUT_RATIO,
        random_state=options.seed,
        stratify=target if task == "classification" else None,
    )
    try:
        pipeline = build_pipeline(preprocess, kinds, task, options.model, options.seed).fit(inputs, target)
        metrics = score(pipeline, task, held_out, held_out_target)
    except ValueError as error:
        raise TrainingError(f"the model cannot be fitted: {error}") from error
    metrics |= score_baseline(task, target, held_out_target)
    say(f"held-out {len(held_out):,} rows: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items()))

    ignored = ignored_columns(table.inputs, kinds, preprocess)
    shown = inputs.drop(columns=ignored)  # an identifier need not be shown in API docs, and cannot drift
    return Trained(
        pipeline=pipeline,
        signature=make_signature(table.inputs, ignored, output_column(target, task)),
        input_example=example_rows(shown),
        reference=reference_instances(shown, options.seed),
        metrics=metrics,
        tags={
            "data": data,
            "target": str(target.name),
            "task": task,
            "model": options.model,
            "seed": str(options.seed),
        },
    )


def read_table(options: argparse.Namespace) -> tuple["Table", str]:
    """Returns the rows to train on, and what they are in a few words."""
    from scripts.training.churn_sample import TARGET, make_churn_sample
    from scripts.training.table import read_csv, split_target

    if options.data is None:
        rows, target, data = make_churn_sample(seed=options.seed), TARGET, f"generated (seed {options.seed})"
        say(f"data: {len(rows):,} generated rows (seed {options.seed}), not real customers")
    else:
        rows, target, data = read_csv(options.data), options.target, options.data.name
        say(f"data: {data}, {len(rows):,} rows, {len(rows.columns)} columns")
    table = split_target(rows, target)
    if table.n_without_target:
        say(f"left out: {table.n_without_target:,} rows without a value in {target!r}")
    return table, data


def next_command(settings: Settings, name: str, version: int, alias: str | None) -> str:
    """Returns the command that serves the new version."""
    variables = [] if name == settings.model_name else [f"SERVING_MODEL_NAME={name}"]
    if alias is None:
        variables.append(f"SERVING_MODEL_VERSION={version}")
    elif alias != settings.model_alias:
        variables.append(f"SERVING_MODEL_ALIAS={alias}")
    return " ".join([*variables, "bentoml serve"])


def say(line: str) -> None:
    """Prints a line of progress."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
