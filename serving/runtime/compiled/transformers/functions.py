"""FunctionTransformer: of NumPy's functions of one number, and of the user's `preprocessing.py`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.runtime.compiled.data import Columns, Data, NotCompiled, as_validated, check_finite, is_text
from serving.runtime.compiled.nodes import Transformer, compiles_transformer
from serving.runtime.compiled.transformers.preprocess_hook import compile_hook, is_hook


@dataclass
class NumpyFunction(Transformer):
    """A function of NumPy's, such as `log1p`, of each number."""

    name: str
    """`""` leaves the numbers as they are."""
    validates: bool

    def transform(self, data: Data) -> Data:
        """Returns a matrix; columns where it got columns and does not validate them.

        Raises:
            ValueError: NaN or an infinite number, where the data are validated.
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
    """`numpy.ravel` of one column: what a vectorizer of text wants of an imputer."""

    def transform(self, data: Data) -> Data:
        """Returns the column without its second dimension."""
        assert isinstance(data, Columns)
        return Columns(data.names, data.arrays, is_flat=True)


@compiles_transformer("sklearn.FunctionTransformer")
def compile_function(fitted: Any, sample: Data) -> Transformer:
    """Compiles a FunctionTransformer.

    Raises:
        NotCompiled: its function is not NumPy's of one number, has arguments, or gets text.
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
        raise NotCompiled("a function with arguments of its own")
    if isinstance(sample, Columns) and any(map(is_text, sample.arrays)):
        raise NotCompiled(f"numpy.{name} of text")
    return NumpyFunction(name, bool(fitted.validate))
