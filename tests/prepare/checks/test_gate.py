"""`serving.prepare.checks.gate`: what a version must stand before any request reaches it."""

from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.batching.policy import Costs
from serving.errors import ModelRefused
from serving.model.digests import DIGEST_TAG
from serving.model.schema import parse_schema
from serving.prepare.checks.gate import (
    NEGLIGIBLE_SECONDS,
    check_costs,
    check_digest,
    check_libraries,
    check_output,
    check_row_count,
    check_signature,
)
from serving.prepare.registry.resolution import FORCE_TAG
from serving.runtime import Description, Output
from serving.settings import Settings
from tests.support.manifests import some_manifest

ONE = parse_schema('[{"name": "x", "type": "double"}]')
TWO = parse_schema('[{"name": "x", "type": "double"}, {"name": "y", "type": "double"}]')


def test_other_files_than_were_registered_are_refused():
    check_digest("a" * 64, "a" * 64)
    check_digest("a" * 64, None)
    with pytest.raises(ModelRefused, match=DIGEST_TAG):
        check_digest("a" * 64, "b" * 64)


def requirements(folder: Path, *lines: str) -> Path:
    file = folder / "requirements.txt"
    file.write_text("\n".join(lines))
    return file


def shifted(name: str, part: int) -> str:
    """The version that is installed, with one part of it raised."""
    parts = version(name).split(".")
    parts[part] = str(int(parts[part]) + 1)
    return ".".join(parts)


@pytest.mark.parametrize(
    ("mode", "part", "is_refused"),
    [
        ("strict", 2, True),
        ("strict", 1, True),
        ("minor", 2, False),
        ("minor", 1, True),
        ("minor", 0, True),
        ("off", 0, False),
    ],
)
def test_libraries_must_be_as_near_as_the_setting_says(
    tmp_path: Path, mode: Any, part: int, is_refused: bool
):
    file = requirements(tmp_path, f"scikit-learn=={shifted('scikit-learn', part)}", "flask==0.1")
    if not is_refused:
        check_libraries(file, mode)
        return
    with pytest.raises(ModelRefused) as error:
        check_libraries(file, mode)
    assert f"here {version('scikit-learn')}" in str(error.value)
    assert "SERVING_LIBRARY_VERSIONS" in str(error.value)
    assert "flask" not in str(error.value)


def test_the_same_libraries_unpinned_ones_and_none_at_all_are_fine(tmp_path: Path):
    check_libraries(requirements(tmp_path, f"numpy=={version('numpy')}", "pandas", "scipy>=1"), "strict")
    check_libraries(tmp_path / "missing.txt", "strict")


def test_a_library_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.prepare.checks.gate.COMPARED_LIBRARIES", ("no-such-library",))
    with pytest.raises(ModelRefused, match=r"no-such-library 1\.0 \(here none\)"):
        check_libraries(requirements(tmp_path, "no-such-library==1.0"), "minor")


def test_a_signature_that_refuses_requests_of_today_needs_force(caplog: pytest.LogCaptureFixture):
    check_signature(None, TWO, {})
    check_signature(ONE, ONE, {})
    with pytest.raises(ModelRefused, match=f"requires the column 'y'.*{FORCE_TAG}"):
        check_signature(ONE, TWO, {})
    check_signature(ONE, TWO, {FORCE_TAG: "True"})
    assert "forced" in caplog.text


CLASSIFIER = Description("classification", ["no", "yes"], has_probabilities=True)


def answer(probabilities: Any, labels: Any = ("no", "yes")) -> Output:
    return Output(labels=np.array(labels, dtype=object), probabilities=np.array(probabilities))


def test_a_good_answer_passes():
    check_output(answer([[1.0, 0.0], [0.2, 0.8]]), CLASSIFIER)
    check_output(Output(values=np.array([1.0, -5.0])), Description("regression"))
    check_output(Output(values=np.array([{"a": float("nan")}, "x"], dtype=object)), Description("other"))
    check_output(Output(labels=np.array([0, 1])), Description("classification", [0, 1]))


@pytest.mark.parametrize(
    ("output", "description", "part"),
    [
        (answer([[1.0, 0.0]]), CLASSIFIER, "shape"),
        (answer([[1.0, np.nan], [0.2, 0.8]]), CLASSIFIER, "1 of its 4 probabilities"),
        (answer([[1.0], [0.2]]), CLASSIFIER, "shape"),
        (answer([[1.5, -0.5], [0.2, 0.8]]), CLASSIFIER, "between 0 and 1"),
        (answer([[1.0, 0.0], [0.2, 0.8]], ["no", "maybe"]), CLASSIFIER, "not among its classes"),
        (Output(values=np.array([np.inf, 1.0])), Description("regression"), "1 of its 2 values"),
        (Output(values=np.array([[np.nan] * 3] * 2)), Description("regression"), "6 of its 6 values"),
        (Output(values=np.array([float("nan"), "x"], dtype=object)), Description("other"), "1 of its 2"),
    ],
)
def test_a_bad_answer_is_refused(output: Output, description: Description, part: str):
    with pytest.raises(ModelRefused, match=part):
        check_output(output, description)


def costs(seconds: float) -> Costs:
    """The same for each row."""
    return Costs({n: n * seconds for n in (1, 8, 64)})


def test_too_slow_is_relative_to_the_version_that_answers():
    check_costs(None, costs(10), 2)
    check_costs(costs(0.01), costs(0.019), 2)
    with pytest.raises(ModelRefused, match="3 times slower"):
        check_costs(costs(0.01), costs(0.03), 2)


def test_what_takes_hardly_any_time_is_never_too_slow():
    check_costs(costs(1e-6), costs(NEGLIGIBLE_SECONDS), 2)


def test_many_rows_count_by_themselves():
    before = Costs({1: 0.01, 64: 0.02})
    with pytest.raises(ModelRefused, match="a row in a batch of 64"):
        check_costs(before, Costs({1: 0.01, 64: 0.64}), 10)


TENSOR = '[{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [%d]}}]'


@pytest.mark.parametrize(
    ("is_per_row", "outputs", "answer_rows", "is_refused"),
    [
        (True, None, "same", False),
        (False, None, "same", True),
        (False, None, "any", False),
        (False, TENSOR % 12, "same", False),
        (False, TENSOR % -1, "same", True),
        (False, '[{"type": "double"}]', "same", True),
    ],
)
def test_another_number_of_results_has_to_be_meant(
    is_per_row: bool, outputs: str | None, answer_rows: Any, is_refused: bool
):
    manifest = some_manifest(is_per_row=is_per_row, outputs=outputs)
    with pytest.raises(ModelRefused, match="SERVING_ANSWER_ROWS") if is_refused else nullcontext():
        check_row_count(manifest, Settings(answer_rows=answer_rows))
