"""Steps before the last: one family of transformers each, its nodes and how they are made from a fitted one."""

from serving.runtime.compiled.transformers import (  # noqa: F401  # importing a family registers it
    encoding,
    expansion,
    feature_selection,
    functions,
    imputation,
    iterative_imputation,
    neighbour_imputation,
    power_quantile,
    scaling,
    splines,
    text,
)
