"""FunctionTransformer: NumPy's functions of one number, and the user's `preprocessing.py`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_validated, check_finite, is_text
from serving.runtime.compiled.nodes import Transformer, compiles_transformer
from serving.runtime.compiled.transformers.preprocess_hook import compile_hook, is_hook


@dataclass
class NumpyFunction(Transformer):
    """A NumPy function of each number, such as `log1p`."""

    name: str
    """`""` keeps the numbers unchanged."""
    validates: bool

    def transform(self, data: Data) -> Data:
        """Returns a matrix, or columns if it gets columns without validating them.

        Raises:
            ValueError: NaN or an infinite number, if data are validated.
        """
        if self.validates:
            data = as_validated(data)
            check_finite(data)
        if not self.name:
            return data
        function = getattr(np, self.name)
        if isinstance(data, Columns):
            return Columns(data.names, [function(array) for array in data.arrays])
        return function(data)  # type: ignore[no-any-return]


@dataclass
class Flat(Transformer):
    """`numpy.ravel` of one column, for a text vectorizer after an imputer."""

    def transform(self, data: Data) -> Data:
        """Returns the column without its second dimension."""
        assert isinstance(data, Columns)
        return Columns(data.names, data.arrays, is_flat=True)


@compiles_transformer("sklearn.FunctionTransformer")
def compile_function(fitted: Any, sample: Data) -> Transformer:
    """Compiles a FunctionTransformer.

    Raises:
        NotCompiled: its function is not a NumPy function of one number, has arguments, or gets text.
    """
    function = fitted.func
    if is_hook(function):
        return compile_hook(function, sample)
    if function is None:
        return NumpyFunction("", bool(fitted.validate))
    if (
        function is np.ravel
        and not fitted.kw_args
        and isinstance(sample, Columns)
        and len(sample.arrays) == 1
    ):
        return Flat()
    name = getattr(function, "__name__", "")
    known = getattr(np, name, None)
    if known is not function or not isinstance(known, np.ufunc):
        raise NotCompiled(f"the function {name or type(function).__name__} is the model's own code")
    if known.nin != 1 or known.nout != 1:
        raise NotCompiled(f"numpy.{name} is not a function of one number")
    if fitted.kw_args:
        raise NotCompiled("a function with extra arguments")
    if isinstance(sample, Columns) and any(map(is_text, sample.arrays)):
        raise NotCompiled(f"numpy.{name} gets text")
    return NumpyFunction(name, bool(fitted.validate))
