"""Growth of this project's cost with the rows of a request, the columns of a row, the trees of a forest."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bulk import time_bulk
from benchmarks.correctness import check_answers
from benchmarks.failures import BenchmarkFailure
from benchmarks.growth_models import COLUMNS, N_ROWS, TREES, Size, rows_file
from benchmarks.inprocess import pool, time_in_process
from benchmarks.load import put_load, write_bodies
from benchmarks.measuring import WARM_UP_CLIENTS, get_runtime, say, started
from benchmarks.peers.project import Project
from benchmarks.results import GrowthPoint
from benchmarks.rows import Model, Record, load_model, load_records

ROW_COUNTS = (1, 10, 100, 1_000, 10_000, 100_000)


class Growing:
    """The measurements of growth, on a registry with the models of `growth_models`."""

    def __init__(self, work: Path, seconds: float) -> None:
        self.work = work
        self.seconds = seconds
        self._project = Project(has_metrics=True)

    def measure(self) -> dict[str, list[GrowthPoint]]:
        """Returns the points of each curve; reports sizes that failed, and leaves them out."""
        curves: dict[str, list[GrowthPoint]] = {"rows": self._rows()}
        points = {size: self._point(size) for size in dict.fromkeys((*COLUMNS, *TREES))}
        for name, sizes in (("columns", COLUMNS), ("trees", TREES)):
            found = [(getattr(size, name), points[size]) for size in sizes]
            curves[name] = [GrowthPoint(n, p.measures, p.runtime) for n, p in found if p is not None]
        return curves

    def _rows(self) -> list[GrowthPoint]:
        """Measures requests of one row to many, for the churn forest."""
        say("\ngrowth: rows of a request, the churn forest")
        model = load_model(self.work, "forest")
        some = load_records(self.work / "rows.parquet")
        file = self.work / "rows.parquet"
        points: list[GrowthPoint] = []
        try:
            in_process = pool(
                time_in_process(model.folder / "mlflow", file, list(ROW_COUNTS), self.seconds)
            ).median_ms
            with started(self._project, model, self.work) as server:
                runtime = get_runtime(server)
                check_answers(server, self._project, model, some)
                for n_rows in ROW_COUNTS:
                    records = (some * (-(-n_rows // len(some))))[:n_rows]
                    measures = {"in process, ms": in_process[str(n_rows)]}
                    for form in self._project.forms:
                        request = self._project.request(records, model, form)
                        bulk = time_bulk(server, request, n_rows, form, self.seconds)
                        measures[f"{form}, ms"] = bulk.median_ms
                    points.append(GrowthPoint(n_rows, measures, runtime))
                    say(f"  {n_rows:,} rows: {told(measures)}")
        except BenchmarkFailure as failure:
            say(f"  FAILED: {failure.reason}\n{failure.log}")
        return points

    def _point(self, size: Size) -> GrowthPoint | None:
        """Measures one synthetic model; returns None if that failed."""
        say(f"\ngrowth: {size.columns} columns, {size.trees:,} trees")
        model = load_model(self.work, size.name)
        records = load_records(rows_file(self.work, size))
        try:
            return self._measure(size, model, records)
        except BenchmarkFailure as failure:
            say(f"  FAILED: {failure.reason}\n{failure.log}")
            return None

    def _measure(self, size: Size, model: Model, records: Sequence[Record]) -> GrowthPoint:
        file = rows_file(self.work, size)
        in_process = pool(time_in_process(model.folder / "mlflow", file, [1, N_ROWS], self.seconds)).median_ms
        shutil.rmtree(self._project.store(model, self.work), ignore_errors=True)
        with started(self._project, model, self.work) as server:
            first_start_seconds = server.start_seconds
        with started(self._project, model, self.work) as server:
            check_answers(server, self._project, model, records)
            requests = [self._project.request([record], model) for record in records]
            bodies = write_bodies(self.work / "bodies.txt", requests)
            put_load(server, bodies, WARM_UP_CLIENTS, seconds=1)
            one = put_load(server, bodies, 1, self.seconds)
            many = put_load(server, bodies, 32, self.seconds)
            memory = server.memory()
            arrow = self._project.request(records, model, "arrow")
            bulk = time_bulk(server, arrow, N_ROWS, "arrow", self.seconds)
            measures = {
                "1 client, p50 ms": one.p50_ms,
                "1 client, p99 ms": one.p99_ms,
                "in process, 1 row, ms": in_process["1"],
                "32 clients, requests/s": many.requests_per_second,
                f"arrow, {N_ROWS} rows, ms": bulk.median_ms,
                f"in process, {N_ROWS} rows, ms": in_process[str(N_ROWS)],
                "largest process, MB": memory.largest_process_mb,
                "start, s": round(server.start_seconds, 2),
                "first start, s": round(first_start_seconds, 2),
            }
            runtime = get_runtime(server)
        say(f"  runtime {runtime}; {told(measures)}")
        return GrowthPoint(0, measures, runtime)


def told(measures: dict[str, float]) -> str:
    """Returns the measures in one line."""
    return "; ".join(f"{name} {value:,.2f}" for name, value in measures.items())
