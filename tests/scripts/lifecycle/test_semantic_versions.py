"""What versions are called, and why."""

import json
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LogisticRegression

from scripts import history, promote
from scripts.lifecycle.semantic_versions import (
    SEMANTIC_VERSION_TAG,
    Lineage,
    SemanticVersion,
    base_of,
    find_level,
    next_version,
)
from serving.model.schema import parse_schema
from tests.support.fake_service import Run
from tests.support.promotions import NAME, Registry, frame, tracking


def schema(**columns: str) -> Any:
    return parse_schema(
        json.dumps([{"name": name, "type": type_, "required": True} for name, type_ in columns.items()])
    )


OLD = Lineage(schema(a="long", b="string"), ("string",), "data", "code")

LEVELS = {
    "nothing": ({}, "patch", "the same data and code"),
    "other data": ({"data": "others"}, "minor", "trained on other data"),
    "unknown data": ({"data": None}, "minor", "its training data is unknown"),
    "other code": ({"code": "others"}, "minor", "trained by other code"),
    "unknown code": ({"code": None}, "minor", "its training code is unknown"),
    "a wider type": ({"schema": schema(a="double", b="string")}, "patch", "the same data and code"),
    "a narrower type": (
        {"schema": schema(a="integer", b="string")},
        "major",
        "column 'a' was long and is integer",
    ),
    "a new column": (
        {"schema": schema(a="long", b="string", c="long")},
        "major",
        "it requires the column 'c'",
    ),
    "a column less": ({"schema": schema(a="long")}, "major", "it has no column 'b'"),
    "other answers": ({"outputs": ("double",)}, "major", "its answers were string and are double"),
    "many columns": (
        {"schema": schema(c="long", d="long", e="long")},
        "major",
        "it has no column 'a'; it has no column 'b'; it requires the column 'c'; and 2 more",
    ),
}


@pytest.mark.parametrize(("changed", "level", "why"), LEVELS.values(), ids=list(LEVELS))
def test_what_changes_for_callers_decides_which_part_rises(changed: dict[str, Any], level: str, why: str):
    assert find_level(OLD, OLD._replace(**changed)) == (level, why)


@pytest.mark.parametrize(
    ("before", "taken", "level", "after"),
    [
        (None, [], "major", "1.0.0"),
        ("1.2.3", [], "patch", "1.2.4"),
        ("1.2.3", [], "minor", "1.3.0"),
        ("1.2.3", [], "major", "2.0.0"),
        ("1.2.3", ["1.2.4", "1.2.9", "1.3.0"], "patch", "1.2.10"),
        ("1.2.3", ["1.10.4", "2.0.0"], "minor", "1.11.0"),
        ("1.2.3", ["2.5.0", "10.0.0"], "major", "11.0.0"),
    ],
)
def test_what_others_are_called_is_passed_over(before: str | None, taken: list[str], level: Any, after: str):
    def parse(text: str) -> SemanticVersion:
        found = SemanticVersion.parse(text)
        assert found is not None
        return found

    assert str(next_version(parse(before) if before else None, [*map(parse, taken)], level)) == after


@pytest.mark.parametrize("text", ["2.1", "2.1.0.0", "02.1.0", "2.1.0-rc1", "a.b.c", "", "2.1.x", "2.1.0\n"])
def test_other_texts_are_no_semantic_versions(text: str):
    assert SemanticVersion.parse(text) is None


def test_a_version_is_compared_with_production_or_else_with_the_newest_before_it():
    one = SemanticVersion(1, 0, 0)
    assert base_of("9", "4", {"4": one, "7": one}) == "4"
    assert base_of("9", "5", {"4": one, "7": one, "10": one}) == "7"
    assert base_of("9", None, {}) is None


def add(registry: Registry, labels: Any, **columns: Any) -> str:
    """Registers a version by hand, of the same data; returns its number."""

    def make(name: str) -> Any:
        X = frame(NAME).assign(**columns)
        model = LogisticRegression(max_iter=50).fit(X / X.max(), labels(len(X)))
        return mlflow.sklearn.log_model(
            model, name="model", registered_model_name=name, signature=infer_signature(X, model.predict(X))
        )

    return registry.add(make)


def called(registry: Registry) -> dict[str, str]:
    found = registry.client.search_model_versions(f"name = '{NAME}'")
    return {
        str(one.version): one.tags[SEMANTIC_VERSION_TAG] for one in found if SEMANTIC_VERSION_TAG in one.tags
    }


def test_promote_calls_versions_that_were_registered_by_hand(registry: Registry, run: Run):
    code, out, _ = run(promote, "2")
    assert code == 0
    unknown = "its training data is unknown"
    assert out.splitlines()[-1] == (
        f"{NAME} version 1 is 1.0.0 (the first); {NAME} version 2 is 1.1.0 (minor after 1.0.0: {unknown})"
    )
    assert (
        run(promote, "3")[1].splitlines()[-1] == f"{NAME} version 3 is 1.2.0 (minor after 1.1.0: {unknown})"
    )
    wide = add(registry, lambda n: np.arange(n) % 3, more=1.0)
    assert (
        f"{wide} is 2.0.0 (major after 1.2.0: it requires the column 'more')"
        in run(promote, wide, "--force")[1]
    )
    assert called(registry) == {"1": "1.0.0", "2": "1.1.0", "3": "1.2.0", wide: "2.0.0"}
    with tracking(registry.uri):
        assert str(registry.client.get_model_version_by_alias(NAME, "v2-0-0").version) == wide

    assert f"version {wide} " not in run(promote, wide)[1].partition("already")[2], "it keeps its name"
    table = run(history)[1]
    assert f"{wide} (2.0.0)" in table
    assert "3 (1.2.0)" in table


def test_what_is_said_goes_before_what_is_worked_out(registry: Registry, run: Run):
    run(promote, "2", "--semantic-version", "3.4.5")
    assert (
        "wine version 3 is 4.0.0 (major after 3.4.5: as asked)"
        in run(promote, "3", "--semantic-version", "major")[1]
    )
    code, out, err = run(promote, "1", "--semantic-version", "v3.4.5")
    assert (code, out, err) == (2, "", "promote.py: 3.4.5 is version 2 of 'wine' already; choose another\n")
    assert registry.aliases["production"] == "3"
    assert "neither a version such as 2.1.0" in run(promote, "1", "--semantic-version", "2.1")[2]
    assert run(promote, "3", "--semantic-version", "5.0.0")[0] == 0
    assert called(registry) == {"1": "1.0.0", "2": "3.4.5", "3": "5.0.0"}
    aliases = registry.client.get_registered_model(NAME).aliases
    assert {name for name in aliases if name.startswith("v")} == {"v1-0-0", "v3-4-5", "v5-0-0"}
