"""Failures of one server, after which the run continues."""


class BenchmarkFailure(Exception):
    """A server cannot be measured, or returns wrong numbers."""

    def __init__(self, reason: str, log: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log


class Refused(BenchmarkFailure):
    """A request got a status other than 2xx."""


class EndedEarly(BenchmarkFailure):
    """A server exited before it was ready."""
