"""Estimators that hold others: what they make of the answers of those inside."""

from serving.runtime.compiled.wrappers import (  # noqa: F401  # importing a family registers it
    calibration,
    composition,
    multioutput,
    single,
    voting,
)
