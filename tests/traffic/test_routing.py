"""`serving.traffic.routing`: which of the loaded models answers a request."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import Forbidden, InvalidInput, ModelNotReady, VersionNotFound
from serving.monitoring.finished import Observer
from serving.runtime import Output
from serving.settings import Settings
from serving.traffic.router import Router
from serving.traffic.routing import NO_CHOICE, Choice, Routes
from serving.traffic.shadow import count_differences
from tests.support.environment import ROOT
from tests.support.manifests import some_manifest


class Model:
    """A loaded model, as far as routes look at it."""

    def __init__(self, version: str) -> None:
        self.tag = f"wine:{version}"
        self.manifest = some_manifest(version=version)
        self.n_users = 0

    def observers(self, role: str) -> tuple[Observer, ...]:
        return ()

    def __enter__(self) -> "Model":
        self.n_users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.n_users -= 1


def routes(percent: float = 0, **more: Any) -> Routes:
    return Routes(Model("1"), **{"challenger": Model("2"), "challenger_percent": percent} | more)


def share(of: Routes, choices: list[Choice]) -> float:
    return sum(of.choose(choice).role == "challenger" for choice in choices) / len(choices)


def test_without_a_champion_nobody_answers(tmp_path: Path):
    with pytest.raises(ModelNotReady, match="no model is ready: the model is being prepared"):
        Router(tmp_path, Settings()).choose(NO_CHOICE)


@pytest.mark.parametrize("percent", [0, 5, 50, 100])
def test_the_challenger_gets_its_share_of_keys_and_of_requests_without(percent: float):
    random.seed(0)
    keys = [Choice(key=f"customer-{n}".encode()) for n in range(4000)]
    # Four standard deviations of a binomial share, at most 50 % of 4,000.
    tolerance = 0 if percent in (0, 100) else 4 * np.sqrt(0.25 / 4000)
    assert share(routes(percent), keys) == pytest.approx(percent / 100, abs=tolerance)
    assert share(routes(percent), [NO_CHOICE] * 4000) == pytest.approx(percent / 100, abs=tolerance)


@given(st.binary(max_size=50), st.floats(0, 100), st.floats(0, 100))
def test_a_key_stays_with_the_challenger_while_its_share_grows(key: bytes, one: float, other: float):
    low, high = sorted((one, other))
    if routes(low).choose(Choice(key=key)).role == "challenger":
        assert routes(high).choose(Choice(key=key)).role == "challenger"


def test_a_key_gets_the_same_version_in_every_process():
    code = (
        "from tests.traffic.test_routing import routes, Choice\n"
        "print([routes(30).choose(Choice(key=b'customer-%d' % n)).role for n in range(50)])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert said == {str([routes(30).choose(Choice(key=b"customer-%d" % n)).role for n in range(50)]) + "\n"}


def test_the_tenth_of_one_model_is_not_the_tenth_of_another():
    other = Routes(Model("1"), challenger=Model("2"), challenger_percent=50)
    other.champion.model.manifest = some_manifest(name="fraud")
    keys = [Choice(key=b"%d" % n) for n in range(200)]
    assert [routes(50).choose(k).role for k in keys] != [other.choose(k).role for k in keys]


def test_a_version_may_be_named_by_number_role_or_alias_where_that_is_allowed():
    allowed = routes(0, shadow=Model("3"), shadow_percent=10, names={"prod": "champion", "blue": "shadow"})
    chosen = {
        name: allowed.choose(Choice(version=name)).model.manifest.version
        for name in ("1", "2", "3", "champion", "challenger", "shadow", "prod", "blue")
    }
    assert chosen == {
        "1": "1",
        "2": "2",
        "3": "3",
        "champion": "1",
        "challenger": "2",
        "shadow": "3",
        "prod": "1",
        "blue": "3",
    }
    with pytest.raises(VersionNotFound, match=r"1 \(champion\), 2 \(challenger\), 3 \(shadow\)"):
        allowed.choose(Choice(version="4"))


@pytest.mark.parametrize(
    ("asked", "version"),
    [
        ("2.1.0", "7"),
        ("2.1", "7"),
        ("v2.1", "7"),
        ("v2", "7"),  # challenger and champion are 2: the champion answers
        ("2.2", "8"),
        ("v2.2.0", "8"),
        ("1", "6"),
        ("2", "2"),  # a number goes before a semantic version
        ("7", "7"),
    ],
)
def test_a_semantic_version_or_its_beginning_names_a_version(asked: str, version: str):
    of = Routes(
        Model("7"),
        challenger=Model("8"),
        shadow=Model("6"),
        names={},
        semantic_versions={"wine:7": "2.1.0", "wine:8": "2.2.0", "wine:6": "1.10.0"},
    )
    if asked == "2":
        of = Routes(Model("7"), challenger=Model("2"), names={}, semantic_versions={"wine:7": "2.1.0"})
    assert of.choose(Choice(version=asked)).model.manifest.version == version


@pytest.mark.parametrize("asked", ["3", "2.10", "2.1.0.0", "2.1.", "v", "", "2.1.1", "vv2", "latest"])
def test_what_no_loaded_version_is_called_is_not_found(asked: str):
    of = Routes(Model("7"), names={}, semantic_versions={"wine:7": "2.1.0"})
    with pytest.raises(VersionNotFound, match=r"expected one of 7, 2\.1\.0 \(champion\)"):
        of.choose(Choice(version=asked))


def test_where_it_is_not_allowed_naming_a_version_is_refused():
    with pytest.raises(Forbidden, match="SERVING_ALLOW_VERSION_CHOICE"):
        routes().choose(Choice(version="1"))


def test_shares_add_up_without_the_shadow():
    of = routes(30, shadow=Model("3"), shadow_percent=10)
    assert [of.share(route) for route in of.all] == [70, 30, 10]


def test_a_route_keeps_its_model_and_says_in_errors_which_it_was():
    route = routes(100).choose(NO_CHOICE)
    with pytest.raises(InvalidInput) as raised, route:
        assert route.model.n_users == 1
        raise InvalidInput("no")
    assert route.model.n_users == 0
    assert raised.value.model == ("churn", "2", "challenger")


@pytest.mark.parametrize(
    ("first", "second", "n_different"),
    [
        (Output(labels=np.array(["a", "b"])), Output(labels=np.array(["a", "c"])), 1),
        (Output(labels=np.array([1, 2])), Output(labels=np.array([1, 2])), 0),
        (Output(labels=np.array([1, 2])), Output(labels=np.array(["1", "2"], dtype=object)), 2),
        (Output(values=np.array([1.0, 2.0])), Output(values=np.array([1.0 + 1e-9, 2.1])), 1),
        (Output(values=np.array([np.nan])), Output(values=np.array([np.nan])), 0),
        (Output(values=np.ones((3, 2))), Output(values=np.ones((3, 3))), 3),
        (Output(values=np.ones((2, 2))), Output(values=np.array([[1, 1], [1, 2.0]])), 1),
        (
            Output(values=np.array([{"a": 1}, "x"], dtype=object)),
            Output(values=np.array([{"a": 2}, "x"], dtype=object)),
            1,
        ),
    ],
)
def test_rows_that_two_models_answer_differently_are_counted(first, second, n_different):
    assert count_differences(first, second) == n_different
