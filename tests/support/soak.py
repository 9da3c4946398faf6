"""Long runs: what `make test` tries briefly, `make soak` tries at length."""

import os

IS_SOAK = os.environ.get("SOAK") == "1"


def scaled(short: int, long: int) -> int:
    """Returns how often: the short form finds what is broken, the long one what is rare or slow."""
    return long if IS_SOAK else short
