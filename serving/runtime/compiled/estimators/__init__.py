"""Last steps: one family of estimators each, its nodes and how they are made from a fitted estimator."""

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
