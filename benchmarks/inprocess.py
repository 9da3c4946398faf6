"""Times the model's own `predict_proba`, in a separate process without a server.

    python -m benchmarks.inprocess MODEL_FOLDER ROWS_FILE --rows 1 10000

Prints the seconds of each call, by number of rows, as JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import warnings
from pathlib import Path

from benchmarks.bulk import repeat
from benchmarks.failures import BenchmarkFailure
from benchmarks.places import PROJECT_BIN, ROOT
from benchmarks.processes import clean_environment
from benchmarks.results import InProcess

Times = dict[str, list[float]]


def main() -> None:
    """Loads the model with the library that wrote it, and times it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=2)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")

    import mlflow.sklearn
    import pandas as pd

    model = mlflow.sklearn.load_model(str(options.model))
    table = pd.read_parquet(options.file)
    times: Times = {}
    for n_rows in options.rows:
        copies = -(-n_rows // len(table))
        rows = pd.concat([table] * copies, ignore_index=True).head(n_rows)
        times[str(n_rows)] = repeat(lambda rows=rows: model.predict_proba(rows), options.seconds)  # type: ignore[misc]  # mypy does not infer a lambda's default
    json.dump(times, sys.stdout)


def time_in_process(model: Path, file: Path, row_counts: list[int], seconds: float) -> Times:
    """Runs this module as a process; returns the seconds of each call.

    Raises:
        BenchmarkFailure: it exited with an error.
    """
    command = [str(PROJECT_BIN / "python"), "-m", "benchmarks.inprocess", str(model), str(file)]
    command += ["--seconds", str(seconds), "--rows", *map(str, row_counts)]
    done = subprocess.run(  # noqa: S603  # our own words
        command, capture_output=True, text=True, check=False, cwd=ROOT, env=clean_environment()
    )
    if done.returncode:
        raise BenchmarkFailure("the model cannot be timed in process", done.stderr[-2000:])
    times: Times = json.loads(done.stdout)
    return times


def pool(*runs: Times) -> InProcess:
    """Pools the calls of several runs and takes the medians."""
    pooled = {rows: [t for run in runs for t in run.get(rows, [])] for rows in runs[0]}
    return InProcess(
        {rows: round(statistics.median(times) * 1e3, 4) for rows, times in pooled.items()},
        {rows: len(times) for rows, times in pooled.items()},
    )


if __name__ == "__main__":
    main()
