"""Which form rows go in as a batch."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from serving.client.bodies import ARROW, JSON, NPY, to_batch
from serving.client.rows import to_rows

FORMS: dict[str, tuple[Any, str, str]] = {
    "a frame": (pd.DataFrame({"a": [1.5, None], "b": ["x", None]}), "v1/predict_batch", ARROW),
    "dicts, which may lack a key": (pd.DataFrame({"a": [{"x": 1}, {"y": 2}]}), "v1/predict", JSON),
    "lists of dicts": (pd.DataFrame({"a": [[{"x": 1}], [{"y": 2}]]}), "v1/predict", JSON),
    "numbers": (np.ones((2, 3)), "v1/predict_batch", NPY),
    "objects": (np.array([["a", 1], ["b", None]], dtype=object), "v1/predict_batch", JSON),
    "lists": ([[1, 2], [3, 4]], "v1/predict_batch", JSON),
    "records": ([{"a": 1}, {"a": 2}], "v1/predict", JSON),
    "a series of records": (pd.Series([{"a": 1}, {"a": 2}]), "v1/predict", JSON),
    "texts": (pd.Series(["one text", "another"]), "v1/predict", JSON),
}


@pytest.mark.parametrize(("rows", "path", "media_type"), FORMS.values(), ids=FORMS)
def test_the_form_of_a_batch(rows: Any, path: str, media_type: str) -> None:
    assert to_batch(to_rows(rows), 0, 2)[:2] == (path, media_type)


def test_what_a_mask_covers_is_missing() -> None:
    """A .npy file would have the value that it covers."""
    rows = np.ma.array([[1.5, 4242.0]], mask=[[False, True]])
    assert to_batch(to_rows(rows), 0, 1) == ("v1/predict_batch", JSON, b"[[1.5,null]]")


def test_a_part_of_an_array() -> None:
    _, _, body = to_batch(to_rows(np.arange(10.0).reshape(5, 2)), 1, 3)
    np.testing.assert_array_equal(np.load(io.BytesIO(body)), [[2, 3], [4, 5]])
