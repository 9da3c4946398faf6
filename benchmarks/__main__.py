"""Measures this project against its alternatives: same models, same rows, one run.

    python -m benchmarks                      # everything
    python -m benchmarks --quick              # everything, too short for meaningful numbers
    python -m benchmarks --peers litserve,fastapi --cases clients-32 --models forest --parts servers
    python -m benchmarks --parts monitoring --out monitoring

Writes results/latest.json, .md and .png (quick.* with --quick, partial.* for a part). Exit code 0 if the run completes,
whatever the verdicts; 2 with a line on stderr if it cannot start; 130 if it was interrupted.
"""

import argparse
import contextlib
import datetime as dt
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from benchmarks.cases import CASES, CASES_OF_MODEL, Plan
from benchmarks.environments import ensure_environment
from benchmarks.failures import BenchmarkFailure
from benchmarks.growth import Growing
from benchmarks.growth_models import growth_digest
from benchmarks.load import find_wrk
from benchmarks.machine import describe_machine
from benchmarks.measuring import Measuring, say
from benchmarks.monitoring import Monitoring
from benchmarks.peers import PEERS
from benchmarks.places import BENCHMARKS, PROJECT_BIN, RESULTS, ROOT, TELCO, WORK
from benchmarks.processes import clean_environment
from benchmarks.registry import source_digest
from benchmarks.report import to_markdown
from benchmarks.results import Results
from benchmarks.rows import load_model, load_records
from benchmarks.targets import judge, judge_monitoring

QUICK = Plan(
    seconds=3, crowd_seconds=5, bulk_seconds=0.5, warm_up_seconds=1, pairs=1, pair_seconds=1, starts=1
)
PARTS = ("servers", "monitoring", "growth")


def names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """Returns a parser of comma-separated names that rejects unknown ones."""

    def parse(text: str) -> tuple[str, ...]:
        chosen = tuple(filter(None, text.split(",")))
        for name in chosen:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown name {name!r}; choose from: {', '.join(known)}")
        return chosen

    return parse


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    peers = tuple(peer.key for peer in PEERS if peer.kind == "peer")
    parser.add_argument(
        "--data",
        type=Path,
        help="CSV file to train on (default: the Telco churn file, else a generated sample)",
    )
    parser.add_argument("--target", default="Churn", help="column of --data to predict (%(default)s)")
    parser.add_argument(
        "--peers",
        type=names(peers),
        default=peers,
        metavar="A,B",
        help=f"only these peers, in addition to the project and the floors; '' for none ({', '.join(peers)})",
    )
    parser.add_argument(
        "--cases",
        type=names(CASES),
        default=CASES,
        metavar="A,B",
        help=f"only these cases ({', '.join(CASES)})",
    )
    models = tuple(CASES_OF_MODEL)
    parser.add_argument(
        "--models",
        type=names(models),
        default=models,
        metavar="A,B",
        help=f"only these models ({', '.join(models)})",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        help=f"duration of each case with clients ({Plan().seconds:g}; whole seconds)",
    )
    parser.add_argument(
        "--crowd-seconds",
        type=float,
        help=f"duration of this project's case with 256 clients ({Plan().crowd_seconds:g}, or --seconds if given)",
    )
    parser.add_argument(
        "--quick", action="store_true", help="short durations, to check that everything works"
    )
    parser.add_argument(
        "--parts",
        type=names(PARTS),
        default=PARTS,
        metavar="A,B",
        help="only these parts: the servers beside each other, what this project's monitoring costs, how its cost "
        f"grows ({', '.join(PARTS)})",
    )
    parser.add_argument("--pairs", type=int, help=f"measurements of each kind of monitoring ({Plan().pairs})")
    parser.add_argument("--out", help="name of the files in results/ (default: latest, quick or partial)")
    options = parser.parse_args(arguments)
    if options.data is not None and not options.data.is_file():
        parser.error(f"--data: no file {options.data}")
    return options


def main() -> int:
    """Runs the benchmark; returns its exit code."""
    options = parse_arguments()
    # So that `kill` also stops the servers: every `finally` runs on exit.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    is_whole = not options.quick and vars(options) == vars(parse_arguments([]))
    out = options.out or ("quick" if options.quick else "latest" if is_whole else "partial")
    try:
        find_wrk()
        if options.parts != ("monitoring",):  # it has no plot
            ensure_environment("bench")
        data = options.data or (TELCO if TELCO.is_file() else None)
        prepare_registry(data, options.target, with_growth="growth" in options.parts)
    except BenchmarkFailure as failure:
        print(f"benchmarks: {failure.reason}\n{failure.log}".strip(), file=sys.stderr)
        return 2
    results = Results(
        measured_at=dt.datetime.now(dt.UTC).isoformat(timespec="minutes"),
        machine=describe_machine(),
        data=data.name if data else "generated sample (scripts/training/churn_sample.py)",
        options={k: v for k, v in vars(options).items() if k not in ("data", "out")},
    )
    code = 0
    try:
        run(options, results)
    except KeyboardInterrupt:
        say("\ninterrupted; results so far:")
        code = 130
    if results.servers:
        results.verdicts = judge(results)
    elif results.monitoring:
        results.verdicts = judge_monitoring(results)
    write(results, out)
    return code


def prepare_registry(data: Path | None, target: str, with_growth: bool) -> None:
    """Creates the registry, unless a previous run left one for the same data and code.

    Raises:
        BenchmarkFailure: a model cannot be trained or registered.
    """
    say(f"data: {data.name if data else 'generated sample (scripts/training/churn_sample.py)'}")
    if _read(WORK / "registry" / "digest") != source_digest(data, target):
        arguments = ["--data", str(data.resolve()), "--target", target] if data else []
        _run_module("benchmarks.registry", *arguments)
    if with_growth and _read(WORK / "registry" / "growth-digest") != growth_digest(WORK):
        say("\nsynthetic models, for the growth of cost")
        _run_module("benchmarks.growth_models")


def _read(file: Path) -> str:
    return file.read_text() if file.is_file() else ""


def _run_module(name: str, *arguments: str) -> None:
    command = [str(PROJECT_BIN / "python"), "-m", name, "--work", str(WORK), *arguments]
    environment = clean_environment() | {"PYTHONPATH": str(ROOT)}
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:  # noqa: S603  # our own words
        raise BenchmarkFailure(f"{name} failed; see its output above")


def run(options: argparse.Namespace, results: Results) -> None:
    """Measures what the options select; adds results immediately, so that an interrupted run keeps them."""
    plan = QUICK if options.quick else Plan()
    if options.seconds:
        plan = plan._replace(seconds=options.seconds, crowd_seconds=options.seconds)
    if options.crowd_seconds:
        plan = plan._replace(crowd_seconds=options.crowd_seconds)
    plan = plan._replace(cases=options.cases, models=options.models)
    if options.pairs:
        plan = plan._replace(pairs=options.pairs)
    if "servers" in options.parts:
        measuring = Measuring(WORK, load_records(WORK / "rows.parquet"), plan)
        results.in_process = measuring.in_process
        models = [load_model(WORK, name) for name in plan.models]
        for peer in PEERS:
            if peer.kind != "peer" or peer.key in options.peers:
                results.servers[peer.key] = measuring.measure(peer, models)
    if "monitoring" in options.parts:
        results.monitoring = Monitoring(WORK, load_records(WORK / "rows.parquet"), plan).measure()
    if "growth" in options.parts:
        results.growth = Growing(WORK, 1 if options.quick else 3).measure()


def write(results: Results, name: str) -> None:
    """Writes the JSON file, the Markdown file and the plots, and prints the report."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    file.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n")
    report = to_markdown(results)
    (RESULTS / f"{name}.md").write_text(report)
    say(f"\n{report}")
    say(f"written: {os.path.relpath(RESULTS)}/{name}.json, {name}.md")
    if not results.servers and not results.growth:
        return
    python = ensure_environment("bench") / "python"
    command = [str(python), str(BENCHMARKS / "plots.py"), str(file), str(RESULTS), name]
    environment = clean_environment() | {"MPLCONFIGDIR": str(WORK / "matplotlib")}
    with contextlib.suppress(KeyboardInterrupt):
        subprocess.run(command, env=environment, check=False)  # noqa: S603  # our own words


if __name__ == "__main__":
    sys.exit(main())
