"""Trains a model on a CSV file, registers it in MLflow with all that serving needs, and promotes it.

    .venv/bin/python scripts/train.py --data customers.csv --target churn --name churn --promote
    .venv/bin/python scripts/train.py --data c.csv --target churn --date signup=%d/%m/%Y --category shop --drop notes
    .venv/bin/python scripts/train.py --promote            # a generated sample, to look around

It decides from all rows what each column is, and prints a table; --number, --category, --text, --date and --drop
override that. Estimators are compared by cross-validation. A model that is no better than the baseline, or rejects
requests that services answer now, is registered but not promoted, unless with --force.
Exit code 0 if done, 1 if the model was registered but not promoted for such a reason, 2 with one line on stderr if it
failed.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.connection import connect  # noqa: E402  # the same
from scripts.lifecycle.semantic_versions import add_semantic_option, ask_versions, check_wish  # noqa: E402  # the same
from scripts.training import TrainingError  # noqa: E402  # needs the line above
from scripts.training.column_options import add_column_options, add_format_options  # noqa: E402  # the same
from scripts.training.registration import (  # noqa: E402  # the same
    SQLITE_PREFIX,
    Wishes,
    check_aliases,
    check_names,
    has_version,
    register,
)
from serving.settings import Settings, SettingsError, load_settings  # noqa: E402  # the same


class OneLineParser(argparse.ArgumentParser):
    """Reports errors in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Raises what `main` prints."""
        raise TrainingError(f"{message} (--help lists the options)")


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line; the environment's settings are the defaults."""
    parser = OneLineParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data", type=Path, help="CSV file (default: a generated sample)")
    parser.add_argument("--target", help="column to predict")
    parser.add_argument("--name", default=settings.model_name, help="registered model (%(default)s)")
    parser.add_argument(
        "--task", choices=("classification", "regression"), help="task (default: by the target)"
    )
    parser.add_argument(
        "--estimator",
        choices=("auto", "linear", "boosting", "forest"),
        default="auto",
        help="auto takes the best in cross-validation; of equals, the fastest to serve (%(default)s)",
    )
    add_column_options(parser)
    add_format_options(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of sample, folds and estimator (0)")
    parser.add_argument("--promote", action="store_true", help="move the alias to the new version")
    parser.add_argument(
        "--force",
        action="store_true",
        help="promote it even if it is no better than the baseline, or rejects requests that services answer now",
    )
    parser.add_argument("--alias", default=settings.model_alias, help="alias to move (%(default)s)")
    add_semantic_option(parser)
    parser.add_argument("--if-missing", action="store_true", help="do nothing if the model is registered")
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
        if options.if_missing and has_version(settings, options.name):
            say(f"{options.name} is registered already; nothing to train")
            return 0
        check_names(options.name, options.alias)
        from scripts.training.run import decide, learn  # takes seconds to import

        decided = decide(options, say)
        client = connect(settings)
        if options.promote:
            check_aliases(client, options.name, options.alias)
        if options.semantic_version:
            check_wish(options.name, options.semantic_version, ask_versions(client, options.name))
        trained = learn(decided, options, say)
        is_wanted = options.promote and (options.force or not trained.why_no_better)
        wishes = Wishes(
            options.alias, is_wanted, options.force, options.semantic_version, settings.trusted_type_names
        )
        version, said, broken = register(client, options.name, trained, wishes)
    except (LifecycleError, SettingsError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2
    is_promoted = is_wanted and not broken
    say(f"registered: {options.name} version {version}")
    say(f"semantic version: {said}")
    if is_promoted:
        say(f"promoted: {options.name}@{options.alias} is version {version} now")
    if options.data is not None:
        say(f"callers read such a file with: {decided.reading}")
    if options.data is not None and settings.publish_examples:
        say(
            "published as an example: its first complete rows; to keep them private, serve with SERVING_PUBLISH_EXAMPLES=false"
        )
    say(f"next: {serve_command(settings, options.name, version, options.alias if is_promoted else None)}")
    if options.promote and not is_promoted:
        why = (
            f"{broken}; after telling the callers"
            if broken
            else f"{trained.why_no_better}; to promote it anyway"
        )
        command = promote_command(settings, options, version, is_forced=bool(broken))
        print(f"train.py: not promoted: {why}: {command}", file=sys.stderr)
        return 1
    return 0


def serve_command(settings: Settings, name: str, version: int, alias: str | None) -> str:
    """Returns the command that serves the new version."""
    variables = [] if name == settings.model_name else [f"SERVING_MODEL_NAME={shlex.quote(name)}"]
    if alias is None:
        variables.append(f"SERVING_MODEL_VERSION={version}")
    elif alias != settings.model_alias:
        variables.append(f"SERVING_MODEL_ALIAS={alias}")
    arguments = ["serve"] if is_at_home() else ["serve", str(ROOT)]
    return command_line(settings, variables, "bentoml", arguments)


def promote_command(settings: Settings, options: argparse.Namespace, version: int, *, is_forced: bool) -> str:
    """Returns the command that promotes the new version."""
    script = Path("scripts/promote.py") if is_at_home() else ROOT / "scripts/promote.py"
    arguments = [str(script), str(version)]
    arguments += [] if options.name == settings.model_name else ["--name", options.name]
    is_default = options.alias == settings.model_alias and settings.model_stage is None
    arguments += [] if is_default else ["--alias", options.alias]
    arguments += ["--force"] if is_forced else []
    return command_line(settings, [], "python", arguments)


def is_at_home() -> bool:
    """Whether this runs in the checkout, so that paths can be short."""
    return Path.cwd() == ROOT and Path(sys.executable).is_relative_to(ROOT)


def command_line(settings: Settings, variables: list[str], program: str, arguments: list[str]) -> str:
    """Returns a command to paste into the same shell.

    Args:
        settings: name the registry.
        variables: to set for it, as NAME=value.
        program: in the folder of this Python, which may not be on the PATH.
        arguments: of the program.
    """
    path = Path(sys.executable).with_name(program)
    here = Path.cwd()
    if is_at_home():
        return " ".join([*variables, str(path.relative_to(here)), *map(shlex.quote, arguments)])
    database = settings.tracking_uri.removeprefix(SQLITE_PREFIX)
    if database != settings.tracking_uri and not database.startswith("/"):  # it is in this folder
        variables = [*variables, f"MLFLOW_TRACKING_URI={shlex.quote(f'{SQLITE_PREFIX}{here}/{database}')}"]
    return " ".join([*variables, *map(shlex.quote, [str(path), *arguments])])


def say(line: str) -> None:
    """Prints a line of progress."""
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
