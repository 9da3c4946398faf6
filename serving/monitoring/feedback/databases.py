"""SQLite and PostgreSQL behind one interface: named parameters, and tables from JSON.

SQLite comes with Python; asyncpg is imported only for a PostgreSQL store.
"""

# ruff: noqa: S608  # statements consist of our own names; values are parameters

import contextlib
import fcntl
import os
import re
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec

from serving.redaction import redact

SQLITE = "sqlite"

TIMEOUT_SECONDS = 10
"""For a connection, and for a lock that another process holds."""

STATEMENT_SECONDS = 300.0
"""For a statement of PostgreSQL, unless somebody waits for it."""

_POSTGRESQL = {"text": "text", "integer": "integer", "real": "double precision"}
"""Its names for SQLite's types of columns."""

_PARAMETER = re.compile(r":([a-z_]+)")


class StoreError(Exception):
    """The store does not answer, or refuses; the message says why, without credentials."""


class Database(Protocol):
    """A connection."""

    def run(self, statement: str, **parameters: Any) -> list[Sequence[Any]]:
        """Returns the rows of a statement with parameters such as `:name`.

        Raises:
            StoreError: it fails.
        """

    def insert(self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """Adds rows, but for those whose primary key is there already.

        Args:
            table: its name.
            columns: names, and SQLite's types.
            rows: values in the order of the columns.

        Raises:
            StoreError: it fails.
        """

    def records(self, columns: Mapping[str, str]) -> str:
        """Returns the source, for FROM, of the rows in the parameter `:rows`: JSON, a list of objects."""

    def create(self, table: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        """Creates a table, if it is not there.

        Raises:
            StoreError: it fails.
        """

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Commits at the end, or rolls back."""

    def lock(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Yields whether this process has a lock, which it holds until the end; one that is killed loses it."""

    def check(self) -> None:
        """Makes sure that what is written is not lost: the file of an open database may have been deleted.

        Raises:
            StoreError: it was.
        """

    def close(self) -> None:
        """Ends the connection."""


def connect(url: str, folder: Path, statement_seconds: float) -> Database:
    """Returns a connection.

    Args:
        url: `sqlite`, or `postgresql://user:password@host:port/database`.
        folder: of the prediction log, where the SQLite file is.
        statement_seconds: timeout of a statement of PostgreSQL.

    Raises:
        StoreError: the database does not answer, or refuses.
    """
    return (
        SQLiteDatabase(folder / ".feedback.db")
        if url == SQLITE
        else PostgreSQLDatabase(url, statement_seconds)
    )


@contextlib.contextmanager
def _transaction(database: Database, begin: str) -> Iterator[None]:
    database.run(begin)
    try:
        yield
    except BaseException:
        with contextlib.suppress(StoreError):
            database.run("ROLLBACK")
        raise
    database.run("COMMIT")


class SQLiteDatabase:
    """A file."""

    def __init__(self, path: Path) -> None:
        import sqlite3

        self._path, self._errors = path, (sqlite3.Error, OSError)
        with self._telling():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(
                os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
            )  # as the log's journals; SQLite's own is 0644
            self._connection = sqlite3.connect(path, timeout=TIMEOUT_SECONDS, isolation_level=None)
            try:
                # Readers and the writer do not wait for each other; each commit is on the disk.
                self._connection.execute("PRAGMA journal_mode=WAL").fetchall()
                self._connection.execute("PRAGMA synchronous=FULL")
                self._file = path.stat().st_ino
            except (sqlite3.Error, OSError):
                self._connection.close()
                raise

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise StoreError(f"{self._path}: {reason}") from None

    def run(self, statement: str, **parameters: Any) -> list[Sequence[Any]]:
        """See `Database`."""
        with self._telling():
            return self._connection.execute(statement, parameters).fetchall()

    def insert(self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """See `Database`."""
        places = ", ".join("?" * len(columns))
        with self.transaction(), self._telling():
            self._connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)

    def records(self, columns: Mapping[str, str]) -> str:
        """See `Database`."""
        fields = ", ".join(f"json_extract(value, '$.{name}') AS {name}" for name in columns)
        return f"(SELECT {fields} FROM json_each(:rows)) AS records"

    def create(self, table: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        """See `Database`."""
        fields = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        self.run(
            f"CREATE TABLE IF NOT EXISTS {table} ({fields}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID"
        )

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """See `Database`."""
        return _transaction(self, "BEGIN IMMEDIATE")

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """See `Database`."""
        with self._telling():
            file = os.open(self._path.with_name(f".feedback.{name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_ours = True
            except OSError:
                is_ours = False
            yield is_ours
        finally:
            os.close(file)

    def check(self) -> None:
        """See `Database`."""
        with self._telling():
            if self._path.stat().st_ino != self._file:
                raise FileNotFoundError(2, os.strerror(2))

    def close(self) -> None:
        """See `Database`."""
        self._connection.close()


class PostgreSQLDatabase:
    """A server."""

    def __init__(self, url: str, statement_seconds: float) -> None:
        import asyncio

        import asyncpg

        self._where = f"PostgreSQL at {urlsplit(url).hostname or 'localhost'}"
        self._errors = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, ValueError)
        self._runner = asyncio.Runner()
        try:
            self._connection: Any = self._await(
                lambda: asyncpg.connect(url, timeout=TIMEOUT_SECONDS, command_timeout=statement_seconds)
            )
        except StoreError:
            self._runner.close()
            raise

    def _await(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def wait() -> Any:
            return await call()

        try:
            return self._runner.run(wait())
        except self._errors as error:
            reason = " ".join(str(error).split())
            if isinstance(error, OSError) and error.errno:  # asyncio's own text has no reason
                reason = os.strerror(error.errno)
            raise StoreError(f"{self._where}: {redact(reason) or type(error).__name__}") from None

    def run(self, statement: str, **parameters: Any) -> list[Sequence[Any]]:
        """See `Database`."""
        names = list(parameters)
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", statement)
        rows: list[Sequence[Any]] = self._await(
            lambda: self._connection.fetch(numbered, *parameters.values())
        )
        return rows

    def insert(self, table: str, columns: Mapping[str, str], rows: Sequence[Sequence[Any]]) -> None:
        """See `Database`."""
        objects = [dict(zip(columns, row, strict=True)) for row in rows]
        self.run(
            f"INSERT INTO {table} SELECT * FROM {self.records(columns)} ON CONFLICT DO NOTHING",
            rows=msgspec.json.encode(objects).decode(),
        )

    def records(self, columns: Mapping[str, str]) -> str:
        """See `Database`."""
        fields = ", ".join(f"{name} {_POSTGRESQL[kind]}" for name, kind in columns.items())
        return f"json_to_recordset(CAST(:rows AS json)) AS records ({fields})"

    def create(self, table: str, columns: Mapping[str, str], key: Sequence[str]) -> None:
        """See `Database`."""
        fields = ", ".join(f"{name} {_POSTGRESQL[kind]}" for name, kind in columns.items())
        with self.transaction():
            # Two replicas that create a table at once would both fail.
            self.run("SELECT pg_advisory_xact_lock(:lock)", lock=_lock_number("create"))
            self.run(f"CREATE TABLE IF NOT EXISTS {table} ({fields}, PRIMARY KEY ({', '.join(key)}))")

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """See `Database`."""
        return _transaction(self, "BEGIN")

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:
        """See `Database`."""
        number = _lock_number(name)
        is_ours = bool(self.run("SELECT pg_try_advisory_lock(:lock)", lock=number)[0][0])
        try:
            yield is_ours
        finally:
            if is_ours:
                with contextlib.suppress(StoreError):  # it ends with the connection
                    self.run("SELECT pg_advisory_unlock(:lock)", lock=number)

    def check(self) -> None:
        """See `Database`; a server does this itself."""

    def close(self) -> None:
        """See `Database`."""
        self._connection.terminate()
        self._runner.close()


def _lock_number(name: str) -> int:
    """Returns the number of a lock; PostgreSQL's locks have no names."""
    return zlib.crc32(f"model-server {name}".encode())
