"""Checks before a promotion whether a service would serve a model, how fast, and what its author should know.

    .venv/bin/python scripts/check.py 7                            # version 7 of SERVING_MODEL_NAME
    .venv/bin/python scripts/check.py models:/churn@challenger
    .venv/bin/python scripts/check.py runs:/0f1e2d…/model          # not registered yet, like models:/m-ID and a folder
    .venv/bin/python scripts/check.py models:/m-0f1e… --name churn # as the next version of churn

It needs no running service, and leaves nothing behind. It prepares the model as a service does, with the settings in
the environment and the libraries installed here, and compares it with the version in production.
Exit code 0 if it would be served, 1 if it would be refused, 2 with one line on stderr if that is unknown.
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
from scripts.lifecycle.cli import DONE, FAILED, OneLineParser, run, teller  # noqa: E402  # the same
from serving.errors import ModelRefused, OutOfMemory, PrepareError  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

if TYPE_CHECKING:
    from scripts.checking.loading import Loaded
    from scripts.checking.source import Source
    from scripts.checking.trial import Trial
    from serving.model.prepared import Prepared


def parse_arguments(arguments: Sequence[str] | None, settings: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "model", help="models:/NAME/VERSION, models:/NAME@ALIAS, models:/m-ID, runs:/RUN_ID/NAME, or a folder"
    )
    parser.add_argument("--name", help="registered model of which it would be the next version")
    selector = parser.add_mutually_exclusive_group()
    selector.add_argument("--alias", help=f"alias of the version to compare with ({settings.model_alias})")
    selector.add_argument("--stage", help="legacy stage of that version instead")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser.parse_args(arguments)


def check(options: argparse.Namespace, settings: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Checks the model; returns exit code, facts and sentences.

    Raises:
        LifecycleError: it cannot be checked.
    """
    from scripts.checking.source import find_source
    from scripts.checking.trial import trial

    source = find_source(options, settings)
    title = source.model.title
    teller(options)(f"preparing {title} as a service does")
    with trial(settings) as attempt:
        champion, not_compared = prepare_champion(source, attempt)
        facts: dict[str, Any] = {
            "model": title,
            "compared_with": champion.manifest.version if champion else None,
            "not_compared": not_compared or None,
        }
        try:
            prepared = attempt.prepare(source.model, champion)
            loaded = attempt.load(prepared)
        except (ModelRefused, OutOfMemory) as error:
            facts |= {"served": False, "reason": str(error), "warnings": attempt.warnings}
            return FAILED, facts, [f"it would be refused: {error}", *to_lines(facts)]
        except PrepareError as error:
            if "mistake of the service" in str(error):
                print(attempt.read_log(), file=sys.stderr)
            if source.model.unregistered_uri and "RESOURCE_DOES_NOT_EXIST" in str(error):
                raise LifecycleError(f"the registry {settings.tracking_uri} has no {title}") from None
            raise LifecycleError(str(error)) from None
        facts |= {"served": True, **describe(prepared, loaded, attempt.warnings)}
    return DONE, facts, [f"it would be served: {describe_runtime(prepared)}", *to_lines(facts)]


def prepare_champion(source: "Source", attempt: "Trial") -> "tuple[Prepared | None, str]":
    """Returns the version in production to compare with; or None, and why."""
    if source.production is None:
        return None, source.not_compared
    try:
        return attempt.find_or_prepare(source.production), ""
    except PrepareError as error:
        return None, f"{source.production.title}, which is in production, cannot be prepared here: {error}"


def describe(prepared: "Prepared", loaded: "Loaded", warned: list[str]) -> dict[str, Any]:
    """Returns the facts about a model that would be served."""
    import yaml

    from scripts.checking.findings import find_warnings

    manifest = prepared.manifest
    folder = prepared.folder / "mlflow"
    mlmodel = yaml.safe_load((folder / "MLmodel").read_text())
    return {
        "task": manifest.task,
        "runtime": manifest.runtime,
        "native_reason": manifest.native_reason,
        "native_steps": manifest.native_steps,
        "parity": msgspec.to_builtins(manifest.parity),
        "call_ms": {"1": round(loaded.one_row_ms, 4), "1000": round(loaded.thousand_rows_ms, 4)},
        "disk_mb": round(sum(f.stat().st_size for f in prepared.folder.rglob("*") if f.is_file()) / 1e6, 3),
        "memory_mb": round(loaded.memory_mb, 1),
        "warnings": [
            *find_warnings(mlmodel, manifest, prepared.schema, folder, loaded.refused_nulls),
            *warned,
        ],
    }


def describe_runtime(prepared: "Prepared") -> str:
    """Returns in words which code serves it, and why."""
    manifest = prepared.manifest
    compared = ""
    if manifest.parity is not None:
        parity = manifest.parity
        compared = f"; its answers to {parity.rows:,} rows differ from its library's by at most {parity.max_abs_difference:.1g}"
    if manifest.runtime == "compiled":
        return f"compiled{compared}"
    if manifest.runtime == "mixed":
        steps = ", ".join(manifest.native_steps)
        return f"compiled except {steps} ({manifest.native_reason}){compared}"
    return f"natively, in the library that trained it ({manifest.native_reason})"


def to_lines(facts: dict[str, Any]) -> list[str]:
    """Returns the sentences after the first."""
    lines = []
    if facts["compared_with"] is not None and facts["served"]:
        lines.append(f"it accepts the requests of version {facts['compared_with']}, which is in production")
    elif facts["compared_with"] is None:
        lines.append(f"not compared with a version in production: {facts['not_compared']}")
    if facts["served"]:
        one, many = facts["call_ms"].values()
        lines.append(f"a call with one row takes {one:.3g} ms, with 1,000 rows {many:.3g} ms")
        lines.append(
            f"it takes {facts['disk_mb']:.3g} MB on disk and {facts['memory_mb']:.3g} MB of each worker's memory"
        )
    return [*lines, *(f"warning: {text}" for text in facts["warnings"])]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("check.py", check, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
