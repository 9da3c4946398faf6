"""The cases of each model, and their durations."""

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
    """The durations of a run, in seconds, and its selection of cases and models."""

    seconds: float = 8
    """Of each case with clients."""
    crowd_seconds: float = 30
    """Of this project with 256 clients: long enough for rare events."""
    bulk_seconds: float = 5
    """Of each case with many rows."""
    warm_up_seconds: float = 3
    pairs: int = 9
    """Measurements of each kind of monitoring, each beside one without monitoring."""
    pair_seconds: float = 1
    """Of each of them."""
    starts: int = 3
    """Starts of each server with the first model, for the median."""
    cases: tuple[str, ...] = CASES
    models: tuple[str, ...] = tuple(CASES_OF_MODEL)

    def cases_of(self, model: str) -> list[str]:
        """Returns the selected cases of a model."""
        return [case for case in CASES_OF_MODEL[model] if case in self.cases]
