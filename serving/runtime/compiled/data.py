"""Rows in a compiled pipeline: named columns at first, later one matrix of numbers.

Text is an object array of `str`; a missing text is NaN, or None if the model expects that (`Column.missing`): two
different values, as in scikit-learn. Numbers are arrays of a NumPy dtype; a missing number is NaN.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from serving.runtime.compiled.sparse import Sparse, side_by_side

Matrix = npt.NDArray[Any]
"""Shape `(n_rows, n_columns)`, a numeric dtype."""


class NotCompiled(Exception):
    """This model, or this part of it, has no compiled form; says why in one clause."""


class Columns(NamedTuple):
    """Columns with names, each an array of shape `(n_rows,)`."""

    names: tuple[Any, ...]
    """Usually text; see `serving.model.schema.Column.label`."""
    arrays: Sequence[npt.NDArray[Any]]
    frame: Any = None
    """The DataFrame that they come from, if a native step returned one."""
    taken: Sequence[int] | None = None
    """Their positions in it; None for all of it."""
    is_flat: bool = False
    """Whether it is one column that its step takes as one-dimensional, as text vectorizers do."""


Data = Columns | Matrix | Sparse

Cells = list[Any]
"""One row as Python values: numbers, text, None. Its floats correspond to float64."""


def count_rows(data: Data) -> int:
    """Returns the number of rows."""
    return len(data.arrays[0]) if isinstance(data, Columns) else len(data)


def count_columns(data: Data) -> int:
    """Returns the number of columns."""
    return len(data.arrays) if isinstance(data, Columns) else data.shape[1]


def is_text(array: npt.NDArray[Any]) -> bool:
    """Whether a column may hold text."""
    return array.dtype.kind == "O"


def select(data: Data, positions: Sequence[int]) -> Data:
    """Returns some of the columns."""
    if isinstance(data, Columns):
        names, arrays = tuple(data.names[p] for p in positions), [data.arrays[p] for p in positions]
        taken = positions if data.taken is None else [data.taken[p] for p in positions]
        return Columns(names, arrays, data.frame, None if data.frame is None else taken, data.is_flat)
    return filled(data)[:, positions]


def filled(data: Matrix | Sparse) -> Matrix:
    """Returns the matrix.

    Raises:
        NotCompiled: it is sparse, and may be too wide for a dense matrix.
    """
    return np.asarray(data)


def as_matrix(data: Data) -> Matrix:
    """Returns the columns side by side, in the dtype that pandas and scikit-learn would choose.

    Raises:
        ValueError: a column holds text.
    """
    if not isinstance(data, Columns):
        return filled(data)
    arrays = data.arrays
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) == 1:
        dtype = next(iter(dtypes))
    elif any(dtype.kind in "bO" for dtype in dtypes):
        # A frame of numbers and booleans becomes objects, which scikit-learn converts to float64.
        dtype = np.dtype(np.float64)
    else:
        dtype = np.result_type(*dtypes)
    if dtype.kind == "O":
        dtype = np.dtype(np.float64)
    out = np.empty((len(arrays[0]), len(arrays)), dtype=dtype)
    for position, array in enumerate(arrays):
        out[:, position] = array
    return out


def as_validated(data: Data) -> Matrix:
    """Returns the matrix that scikit-learn's `validate_data` makes of a frame with these columns.

    It is column-major, as from pandas, because the rounding of sums and products depends on the memory order;
    booleans get the dtype of the other columns.
    Source: sklearn.utils.validation.check_array, `pandas_requires_conversion`.

    Raises:
        ValueError: a column holds text.
    """
    if not isinstance(data, Columns):
        return filled(data)
    arrays = data.arrays
    dtypes = {array.dtype for array in arrays}
    dtype = dtypes.pop() if len(dtypes) == 1 else np.result_type(*dtypes)
    if dtype.kind == "O":
        dtype = np.dtype(np.float64)
    out = np.empty((len(arrays), len(arrays[0])), dtype=dtype)
    for position, array in enumerate(arrays):
        out[position] = array
    return out.T


def as_factor(data: Data) -> Matrix | Sparse:
    """Returns a factor for a product with weights: `as_validated`; sparse data stay unchanged."""
    return data if isinstance(data, Sparse) else as_validated(data)


def as_float(matrix: Matrix) -> Matrix:
    """Returns float32 unchanged, else float64: scikit-learn's FLOAT_DTYPES."""
    return matrix if matrix.dtype in (np.float64, np.float32) else matrix.astype(np.float64)


def check_finite(matrix: Matrix | Sparse, *, allow_nan: bool = False) -> None:
    """Rejects what scikit-learn's `check_array` rejects.

    Raises:
        ValueError: an infinite number, or NaN unless it is allowed.
    """
    if matrix.dtype.kind != "f":
        return
    if isinstance(matrix, Sparse):
        matrix = matrix.values
    if np.isfinite(matrix).all():
        return
    if np.isinf(matrix).any():
        raise ValueError("Input contains infinity or a value too large for the dtype")
    if not allow_nan and np.isnan(matrix).any():
        raise ValueError("Input contains NaN")


def concatenate(blocks: Sequence[Data]) -> Data:
    """Returns blocks side by side: one matrix, or columns if one of them has text."""
    if any(isinstance(block, Columns) and any(map(is_text, block.arrays)) for block in blocks):
        names: list[Any] = []
        arrays: list[npt.NDArray[Any]] = []
        for block in blocks:
            own = block.arrays if isinstance(block, Columns) else list(filled(block).T)
            names += block.names if isinstance(block, Columns) else [""] * len(own)
            arrays += own
        return Columns(tuple(names), arrays)
    if any(isinstance(block, Sparse) for block in blocks):
        return side_by_side([block if isinstance(block, Sparse) else as_matrix(block) for block in blocks])
    matrices = [as_matrix(block) for block in blocks]
    return matrices[0] if len(matrices) == 1 else np.concatenate(matrices, axis=1)
