"""What is measured with which model, and for how long."""

from typing import NamedTuple

CLIENTS = {"clients-1": 1, "clients-32": 32, "clients-256": 256}
"""Cases of many requests with one row each: the number of clients."""

ROWS = {"rows-100": 100, "rows-10000": 10_000}
"""Cases of one client with many rows in each request: the number of rows."""

CASES = (*CLIENTS, *ROWS)

CASES_OF_MODEL = {
    "forest": CASES,
    "linear": ("clients-1", "clients-32", "rows-10000"),
    "native": ("clients-1", "clients-32"),
}


class Plan(NamedTuple):
    """The lengths of a run, in seconds, and what it leaves out."""

    seconds: float = 8
    """Of each case with clients."""
    crowd_seconds: float = 30
    """Of this project with 256 clients: long enough for what happens rarely to happen."""
    bulk_seconds: float = 5
    """Of each case with many rows."""
    warm_up_seconds: float = 3
    starts: int = 3
    """How often each server is started with the first model, for the median."""
    cases: tuple[str, ...] = CASES
    models: tuple[str, ...] = tuple(CASES_OF_MODEL)

    def cases_of(self, model: str) -> list[str]:
        """Returns the cases of a model that were asked for."""
        return [case for case in CASES_OF_MODEL[model] if case in self.cases]
