"""Last steps: a module per family of estimators, with its nodes and their compilers."""

from serving.runtime.compiled.estimators import (  # noqa: F401  # importing a family registers it
    bayes,
    boosting,
    forests,
    histogram_boosting,
    lightgbm,
    linear,
    neural_network,
    unsupervised,
    xgboost,
)
