"""Stores on both databases."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serving.monitoring.feedback.store import Store, open_store
from tests.support.postgresql import PostgreSQL, running_postgresql


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server for all tests."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def opening(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """Opens a store that is empty at first; each time another connection to it."""
    url = "sqlite"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql").url
        with open_store(url, tmp_path) as store:
            store.delete_old("churn", float("inf"))
            store.delete_old("other", float("inf"))
    opened: list[Store] = []

    def open_it() -> Store:
        opened.append(open_store(url, tmp_path))
        return opened[-1]

    yield open_it
    for one in opened:
        one.close()


@pytest.fixture
def store(opening: Callable[[], Store]) -> Store:
    """An empty store."""
    return opening()
