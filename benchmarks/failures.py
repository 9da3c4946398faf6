"""What ends the measuring of one server, not the run."""


class BenchmarkFailure(Exception):
    """A server cannot be measured, or answers wrong numbers."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log


class Refused(BenchmarkFailure):
    """A request was answered with a status other than 2xx."""


class EndedEarly(BenchmarkFailure):
    """A server ended by itself before it was ready."""
