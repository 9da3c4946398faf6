"""Meta-estimators: how they combine the outputs of the estimators inside."""

from serving.runtime.compiled.wrappers import (  # noqa: F401  # importing a family registers it
    calibration,
    composition,
    multioutput,
    single,
    voting,
)
