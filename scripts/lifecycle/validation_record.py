"""The results of a validation, as stored in the record of a move."""

import msgspec


class Check(msgspec.Struct, frozen=True):
    """One threshold and its result."""

    where: str
    """All rows, or a slice of them."""
    metric: str
    rule: str
    value: float | None
    before: float | None
    """Of the version in production, on the same rows."""
    is_met: bool


class Results(msgspec.Struct, frozen=True, omit_defaults=True):
    """The results of one validation."""

    data: str
    """The name of the file with the right answers."""
    rows: int
    compared_with: str | None
    """The version in production; None if there was none, or it was the one validated."""
    checks: list[Check]
    left_out: int = 0
    """Number of further checks, which were cut."""

    @property
    def summary(self) -> str:
        """The result in one line."""
        n_failed = sum(not check.is_met for check in self.checks)
        n_checks = len(self.checks) + self.left_out
        verdict = f"{n_failed} of {n_checks} checks not met" if n_failed else f"all {n_checks} checks met"
        if n_checks == 1:
            verdict = "1 check not met" if n_failed else "1 check met"
        compared = f", compared with version {self.compared_with}" if self.compared_with else ""
        return f"{self.rows:,} rows{compared}: {verdict}"

    def cut(self, n_checks: int) -> "Results":
        """Returns `n_checks` of the checks: those that are not met first, then those of all rows."""
        ordered = sorted(self.checks, key=lambda check: check.is_met)
        return msgspec.structs.replace(
            self, checks=ordered[:n_checks], left_out=self.left_out + max(0, len(ordered) - n_checks)
        )
