"""Comparing columns of objects, among which NaN is equal to NaN."""

import numpy as np


def assert_same_cells(got: np.ndarray, want: np.ndarray) -> None:
    """The same dtype, shape and cells; NaN is one value, and None another."""
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    for a, b in zip(got.tolist(), want.tolist(), strict=True):
        assert a == b or (a != a and b != b)  # noqa: PLR0124  # that is what NaN is
