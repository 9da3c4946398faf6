"""Steps before the last: a module per family of transformers, with its nodes and their compilers."""

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
