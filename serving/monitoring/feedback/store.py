"""Answers and truths, in a database."""

# ruff: noqa: S608  # statements consist of our own names; values are parameters

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from serving.monitoring.feedback.answers import Answer
from serving.monitoring.feedback.databases import STATEMENT_SECONDS, connect

T = TypeVar("T")

ANSWERS = {
    "model": "text",
    "request_id": "text",
    "row_index": "integer",
    "role": "text",
    "version": "text",
    "time": "real",
    "key": "text",
    "label": "text",
    "value": "real",
    "score": "real",
    "probabilities": "text",
    "slices": "text",
}
TRUTHS = {"model": "text", "request_id": "text", "row_index": "integer", "truth": "text", "time": "real"}
KEY_TRUTHS = {"model": "text", "key": "text", "truth": "text", "time": "real"}
FILES = {"name": "text", "time": "real"}
COMPARISON = ("model", "champion", "challenger")
COMPARISONS = {**dict.fromkeys((*COMPARISON, "role"), "text"), "time": "real"}

INSERT_ROWS = 5_000
"""Rows of a statement."""

CLOCK_SECONDS = 60.0
"""A truth by key is about answers before it. The clocks of two machines may differ by this much."""

KEYED = f"answers.model = k.model AND answers.key = k.key AND answers.time <= k.time + {CLOCK_SECONDS}"

_TOLD = (
    # SQLite goes from the truths, of which there are fewer (CROSS JOIN), to the answers by their key (+: not by time).
    "SELECT {columns}, t.truth FROM serving_truths t CROSS JOIN serving_answers answers WHERE answers.model = t.model "
    "AND answers.request_id = t.request_id AND answers.row_index = t.row_index "
    "AND t.model = :model AND +answers.time >= :since "
    "UNION ALL "
    "SELECT {columns}, k.truth FROM serving_key_truths k CROSS JOIN serving_answers answers WHERE "
    + KEYED
    + " "
    "AND k.model = :model AND +answers.time >= :since AND NOT EXISTS (SELECT 1 FROM serving_truths t "
    "WHERE t.model = answers.model AND t.request_id = answers.request_id AND t.row_index = answers.row_index)"
)
"""Answers with their truth; one for the row itself overrides one for its key."""

EVALUATED = ("version", "role", "time", "request_id", "row_index", *tuple(ANSWERS)[7:])
"""Columns of the answers that quality is computed from."""


class Truth(NamedTuple):
    """What really happened."""

    request_id: str
    row_index: int
    truth: str


class Count(NamedTuple):
    """Answers of a version in a role."""

    n_rows: int
    first_time: float


class KeyTruth(NamedTuple):
    """What really happened to what a key names."""

    key: str
    truth: str


class Store:
    """An open store. Its methods raise `StoreError` if the database fails."""

    def __init__(self, url: str, folder: Path, statement_seconds: float = STATEMENT_SECONDS) -> None:
        """Opens it, and creates the tables that are missing.

        Args:
            url: `sqlite` or the URL of a PostgreSQL database.
            folder: of the prediction log.
            statement_seconds: timeout of a statement of PostgreSQL.

        Raises:
            StoreError: it cannot be opened.
        """
        self._database = connect(url, folder, statement_seconds)
        try:
            self._create()
        except BaseException:
            self._database.close()
            raise

    def _create(self) -> None:
        create = self._database.create
        create("serving_answers", ANSWERS, ("model", "request_id", "row_index", "role", "version"))
        create("serving_truths", TRUTHS, ("model", "request_id", "row_index"))
        create("serving_key_truths", KEY_TRUTHS, ("model", "key"))
        create("serving_files", FILES, ("name",))
        create("serving_comparisons", COMPARISONS, (*COMPARISON, "role"))
        for table, name, columns in (
            ("answers", "key", "model, key, time"),
            ("answers", "time", "model, time, version, role"),
            ("truths", "time", "model, time"),
            ("key_truths", "time", "model, time"),
        ):
            self._database.run(
                f"CREATE INDEX IF NOT EXISTS serving_{table}_{name} ON serving_{table} ({columns})"
            )

    def check(self) -> None:
        """Makes sure that the database is still there."""
        self._database.check()

    def close(self) -> None:
        """Closes it."""
        self._database.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def moving(self) -> contextlib.AbstractContextManager[bool]:
        """Yields whether this is the only process that may move a version now, over all that use the store."""
        return self._database.lock("moving")

    def add_answers(self, answers: Iterable[Answer], file: str | None = None) -> int:
        """Adds answered rows; returns how many were given.

        Args:
            answers: those that are there already are left as they are.
            file: of the log with these answers, which is complete then.
        """
        n_answers = 0
        for some in _batched(answers):  # each on its own: feedback does not wait for a large file
            self._database.insert("serving_answers", ANSWERS, some)
            n_answers += len(some)
        if file is not None:
            self._database.insert("serving_files", FILES, [(file, time.time())])
        return n_answers

    def has_files(self) -> set[str]:
        """Returns the log's files whose answers are all here."""
        return {str(name) for (name,) in self._database.run("SELECT name FROM serving_files")}

    def add_truths(self, model: str, truths: Sequence[Truth], key_truths: Sequence[KeyTruth]) -> None:
        """Adds truths; each replaces an earlier one about the same row or key. All are added, or none.

        Args:
            model: name.
            truths: of rows, each at most once.
            key_truths: of keys, each at most once.
        """
        now = time.time()
        with self._database.transaction():
            for table, columns, key, some in (
                ("serving_truths", TRUTHS, "model, request_id, row_index", truths),
                ("serving_key_truths", KEY_TRUTHS, "model, key", key_truths),
            ):
                # The same truth again changes nothing, but that of a key is also about the answers since.
                unless = f" WHERE {table}.truth <> excluded.truth" if columns is TRUTHS else ""
                for part in _batched(some):
                    self._database.run(
                        f"INSERT INTO {table} SELECT * FROM {self._database.records(columns)} WHERE true "
                        f"ON CONFLICT ({key}) DO UPDATE SET truth = excluded.truth, time = excluded.time{unless}",
                        rows=_to_json(columns, [(model, *one, now) for one in part]),
                    )

    def find(self, model: str, truths: Sequence[Truth]) -> dict[tuple[str, int], tuple[str | None, str]]:
        """Returns the answers that truths are about: label (None of a regression) and version, by request and row."""
        columns = {name: TRUTHS[name] for name in ("request_id", "row_index")}
        found: dict[tuple[str, int], tuple[str | None, str]] = {}
        for part in _batched(truths):
            rows = self._database.run(
                "SELECT answers.request_id, answers.row_index, answers.label, answers.version "
                # CROSS JOIN: SQLite keeps the order, and uses the primary key.
                f"FROM {self._database.records(columns)} CROSS JOIN serving_answers answers WHERE answers.model = :model "
                "AND answers.request_id = records.request_id AND answers.row_index = records.row_index",
                rows=_to_json(columns, [one[:2] for one in part]),
                model=model,
            )
            found |= {(row[0], row[1]): (row[2], row[3]) for row in rows}
        return found

    def find_keys(self, model: str, keys: Sequence[str]) -> dict[str, tuple[str | None, str]]:
        """Returns the same by key, of one answer to each that a truth of now is about."""
        found: dict[str, tuple[str | None, str]] = {}
        for part in _batched(keys):
            rows = self._database.run(
                "SELECT answers.key, min(answers.label), min(answers.version) "
                f"FROM {self._database.records({'key': 'text'})} CROSS JOIN serving_answers answers "
                # With a time, SQLite uses the index of keys; it would read all answers for each key otherwise.
                "WHERE answers.model = :model AND answers.key = records.key AND answers.time <= :latest GROUP BY 1",
                rows=_to_json(["key"], [(key,) for key in part]),
                model=model,
                latest=time.time() + CLOCK_SECONDS,
            )
            found |= {row[0]: (row[1], row[2]) for row in rows}
        return found

    def classes(self, model: str, version: str) -> list[str]:
        """Returns the classes of a version; empty if its answers have no probabilities."""
        found = self._database.run(
            "SELECT probabilities FROM serving_answers WHERE model = :model AND version = :version "
            "AND probabilities IS NOT NULL LIMIT 1",
            model=model,
            version=version,
        )
        return list(msgspec.json.decode(found[0][0])) if found else []

    def count_truths(self, model: str) -> tuple[int, int]:
        """Returns the number of truths, and how many of them are about no logged answer."""
        counted = [
            self._database.run(statement, model=model)[0][0]
            for statement in (
                "SELECT count(*) FROM serving_truths WHERE model = :model",
                "SELECT count(*) FROM serving_key_truths WHERE model = :model",
                "SELECT count(*) FROM serving_truths t WHERE model = :model AND NOT EXISTS (SELECT 1 FROM "
                "serving_answers a WHERE a.model = t.model AND a.request_id = t.request_id AND a.row_index = t.row_index)",
                "SELECT count(*) FROM serving_key_truths k WHERE model = :model AND NOT EXISTS (SELECT 1 FROM "
                f"serving_answers answers WHERE {KEYED})",
            )
        ]
        return counted[0] + counted[1], counted[2] + counted[3]

    def last_change(self, model: str) -> list[float | None]:
        """Returns the times of the newest answer and truths, by which another replica's are noticed."""
        newest = "SELECT max(time) FROM serving_{} WHERE model = :model"
        tables = ("answers", "truths", "key_truths")
        return [self._database.run(newest.format(table), model=model)[0][0] for table in tables]

    def count_answers(self, model: str, since: float) -> dict[tuple[str, str], Count]:
        """Returns the number of answers since a time, and the first one's time, by version and role."""
        rows = self._database.run(
            "SELECT version, role, count(*), min(time) FROM serving_answers WHERE model = :model AND time >= :since "
            "GROUP BY version, role",
            model=model,
            since=since,
        )
        return {(row[0], row[1]): Count(row[2], row[3]) for row in rows}

    def start_of(self, model: str, champion: str, challenger: str, role: str, first: float) -> float:
        """Returns when a comparison of two versions began; it keeps the first time that it is given."""
        pair = (model, champion, challenger, role)
        self._database.insert("serving_comparisons", COMPARISONS, [(*pair, first)])
        matching = " AND ".join(f"{name} = :{name}" for name in (*COMPARISON, "role"))
        rows = self._database.run(
            f"SELECT time FROM serving_comparisons WHERE {matching}",
            **dict(zip((*COMPARISON, "role"), pair, strict=True)),
        )
        return float(rows[0][0])

    def told(self, model: str, since: float, n_rows: int) -> list[Sequence[Any]]:
        """Returns answers with their truth, the newest first: the columns `EVALUATED`, then the truth."""
        columns = ", ".join(f"answers.{name}" for name in EVALUATED)
        return self._database.run(
            f"SELECT * FROM ({_TOLD.format(columns=columns)}) AS told ORDER BY time DESC LIMIT :n_rows",
            model=model,
            since=since,
            n_rows=n_rows,
        )

    def untold(self, model: str, since: float, n_rows: int) -> list[Sequence[Any]]:
        """Returns answers without truth, the newest first: the columns `EVALUATED`."""
        columns = ", ".join(f"answers.{name}" for name in EVALUATED)
        return self._database.run(
            f"SELECT {columns} FROM serving_answers answers WHERE answers.model = :model AND answers.time >= :since "
            "AND NOT EXISTS (SELECT 1 FROM serving_truths t WHERE t.model = answers.model "
            "AND t.request_id = answers.request_id AND t.row_index = answers.row_index) "
            f"AND NOT EXISTS (SELECT 1 FROM serving_key_truths k WHERE {KEYED}) "
            "ORDER BY answers.time DESC LIMIT :n_rows",
            model=model,
            since=since,
            n_rows=n_rows,
        )

    def truths(self, model: str) -> Iterator[Truth]:
        """Yields the truths of rows that were answered, those by key included."""
        columns = "answers.request_id, answers.row_index"
        statement = f"SELECT DISTINCT * FROM ({_TOLD.format(columns=columns)}) AS told"
        for row in self._database.run(statement, model=model, since=0.0):
            yield Truth(*row)

    def delete_old(self, model: str, oldest: float) -> None:
        """Deletes what is older than a time, in seconds since 1970."""
        for table in ("answers", "truths", "key_truths"):
            self._database.run(
                f"DELETE FROM serving_{table} WHERE model = :model AND time < :oldest",
                model=model,
                oldest=oldest,
            )
        # The log deletes its files by the day: they are known until they are gone.
        self._database.run("DELETE FROM serving_files WHERE time < :oldest", oldest=oldest - 2 * 86_400)


def open_store(url: str, folder: Path, statement_seconds: float = STATEMENT_SECONDS) -> Store:
    """Opens a store; see `Store`."""
    return Store(url, folder, statement_seconds)


def _batched(rows: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(rows)
    while some := list(islice(remaining, INSERT_ROWS)):
        yield some


def _to_json(columns: Iterable[str], rows: Iterable[Sequence[Any]]) -> str:
    return msgspec.json.encode([dict(zip(columns, row, strict=True)) for row in rows]).decode()
