"""A dozen of the collection's models, and its table; `make zoo` tries all."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serving.prepare import compiling
from tests.support.models import fill_registry
from tests.zoo.collection import MODELS, REPRESENTATIVE
from tests.zoo.comparing import difference, find_out
from tests.zoo.table import TABLE, names_in_table


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URI of a registry, and a BENTOML_HOME."""
    folder = tmp_path_factory.mktemp("zoo")
    with pytest.MonkeyPatch.context() as patch:
        # What native models take seconds for is tried in other files.
        patch.setattr(compiling, "ROWWISE_SECONDS", 0.2)
        yield fill_registry(folder / "registry", {}), folder / "home"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REPRESENTATIVE)
def test_the_service_answers_what_mlflow_says(places: tuple[str, Path], name: str):
    found = find_out(name, *places)
    assert (found.wrong, found.n_compared > 10) == ([], True), found.reason


def test_the_table_has_all_models():
    assert names_in_table() == list(MODELS)
    assert len(MODELS) >= 100


def test_every_answer_in_the_table_is_right():
    text = TABLE.read_text()
    assert "**wrong**" not in text
    assert "| crashed |" not in text


@pytest.mark.parametrize(
    ("expected", "got", "how_far"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, np.nan], [1.0, None], 0),
        ([0.5], [0.25], 0.25),
        ([1000.0], [1001.0], 0.001),
        ([1.0], [np.nan], np.inf),
        ([1.0, 2.0], [[1.0, 2.0]], np.inf),
        ([True], [1], np.inf),
        (["a"], ["b"], np.inf),
        ([{"a": np.nan}], [{"a": None}], 0),
        ([1.0], None, np.inf),
    ],
)
def test_answers_that_differ_are_told(expected, got, how_far):
    assert difference(expected, got) == how_far
