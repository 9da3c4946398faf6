"""Sparse rows, as from text vectorizers."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt


class Sparse:
    """A matrix in scipy's CSR format, whose products add from left to right.

    It implements only what linear models and naive Bayes need.
    """

    def __init__(
        self, values: npt.NDArray[Any], columns: npt.NDArray[Any], starts: npt.NDArray[Any], n_columns: int
    ) -> None:
        self.values, self.columns, self.starts, self.n_columns = values, columns, starts, n_columns
        """`columns` of each value, ascending per row; row `i` is from `starts[i]` to before `starts[i + 1]`."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self), self.n_columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values."""
        return self.values.dtype

    def with_values(self, values: npt.NDArray[Any]) -> "Sparse":
        """Returns other values in the same places."""
        return Sparse(values, self.columns, self.starts, self.n_columns)

    def astype(self, dtype: Any) -> "Sparse":
        """Returns the values in another dtype."""
        return self.with_values(self.values.astype(dtype))

    def _rows(self) -> Iterator[tuple[int, slice]]:
        for row, (start, stop) in enumerate(itertools.pairwise(self.starts.tolist())):
            if start < stop:
                yield row, slice(start, stop)

    def row_sums(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns for each row the sum of the values at its positions, added from left to right.

        Args:
            values: shape `(n_values,)`.
        """
        out = np.zeros(len(self), dtype=values.dtype)
        for row, places in self._rows():
            # NumPy's own sums are pairwise, which rounds differently.
            out[row] = values[places].cumsum()[-1]
        return out

    def __matmul__(self, weights: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Returns the product. Source: scipy/sparse/sparsetools/csr.h, csr_matvec and csr_matvecs."""
        values = self.values if weights.ndim == 1 else self.values[:, None]
        out = np.zeros((len(self), *weights.shape[1:]), np.result_type(values, weights))
        # One row at a time: all terms of many rows, times many classes, would fill the memory.
        for row, places in self._rows():
            out[row] = (values[places] * weights[self.columns[places]]).cumsum(axis=0)[-1]
        return out

    def toarray(self) -> npt.NDArray[Any]:
        """Returns the matrix with its zeros."""
        out = np.zeros((len(self), self.n_columns), dtype=self.dtype)
        out[np.repeat(np.arange(len(self)), np.diff(self.starts)), self.columns] = self.values
        return out

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        from serving.runtime.compiled.data import NotCompiled  # a circular import

        raise NotCompiled("its compiled form does not take the sparse matrix of a vectorizer")


def side_by_side(blocks: Sequence["Sparse | npt.NDArray[Any]"]) -> Sparse:
    """Returns blocks with the same number of rows as one matrix. Source: scipy.sparse.hstack."""
    rows, columns, values, width = [], [], [], 0
    n_rows = len(blocks[0])
    for block in blocks:
        if isinstance(block, Sparse):
            rows.append(np.repeat(np.arange(n_rows), np.diff(block.starts)))
            columns.append(block.columns + width)
            values.append(block.values)
            width += block.n_columns
        else:
            found = np.nonzero(block)
            rows.append(found[0])
            columns.append(found[1] + width)
            values.append(block[found])
            width += block.shape[1]
    row = np.concatenate(rows)
    order = row.argsort(kind="stable")
    starts = np.concatenate(([0], np.bincount(row, minlength=n_rows).cumsum()))
    return Sparse(np.concatenate(values)[order], np.concatenate(columns)[order], starts, width)
