"""`scripts/shadow.py`: the alias and its share are set, taken away, waited for and recorded."""

import json

import pytest

from scripts import history, shadow
from serving.prepare.registry.resolution import SHADOW_PERCENT_TAG
from tests.support.fake_service import FakeService, Run
from tests.support.promotions import NAME, Registry


def share(registry: Registry) -> str | None:
    return registry.client.get_registered_model(NAME).tags.get(SHADOW_PERCENT_TAG)


def test_a_shadow_is_set_and_taken_away_and_both_are_recorded(
    registry: Registry, service: FakeService, run: Run
):
    service.on_look = lambda: setattr(service, "percent", float(share(registry) or 100))
    code, out, err = run(shadow, "2", "--percent", "12.5", "--why", "new features", "--url", service.url)
    assert (code, err) == (0, "")
    assert out == (
        f"{NAME}@shadow is version 2, with 12.5 % of the requests\n{service.url} has version 2 as shadow (one address; other pods behind it were not checked)\n"
    )
    assert registry.aliases == {"production": "1", "shadow": "2"}
    assert share(registry) == "12.5"

    code, out, _ = run(shadow, "--off", "--url", service.url)
    assert code == 0
    assert f"{service.url} has no shadow (one address" in out
    assert registry.aliases == {"production": "1"}
    assert share(registry) is None
    assert run(shadow, "--off")[:2] == (0, f"{NAME}@shadow is not set\n")

    moves = json.loads(run(history, "--alias", "shadow", "--json")[1])["moves"]
    assert [(move["kind"], move["from"], move["to"], move["why"]) for move in moves] == [
        ("shadow", None, "2", "new features"),
        ("shadow", "2", None, ""),
    ]


def test_a_service_that_asks_another_share_has_not_followed(
    registry: Registry, service: FakeService, run: Run
):
    code, out, _ = run(shadow, "2", "--percent", "20", "--url", service.url, "--timeout", "0.2")
    assert code == 1
    assert f"{service.url} has not followed: the share is different" in out


def test_a_version_that_a_service_refuses_is_told(registry: Registry, service: FakeService, run: Run):
    def refuse() -> None:
        if "shadow" in registry.aliases:
            service.refused = [{"version": "2", "at": "now", "reason": "it is too slow"}]

    service.on_look = refuse
    code, out, _ = run(shadow, "2", "--url", service.url)
    assert code == 1
    assert f"{service.url} has not followed: it is too slow" in out


@pytest.mark.parametrize(
    ("followed", "words"), [(None, "follows no alias for its shadow"), ("other", "follows the alias 'other'")]
)
def test_a_service_that_takes_no_shadow_is_told_before_anything_is_set(
    registry: Registry, service: FakeService, run: Run, followed: str | None, words: str
):
    service.aliases["shadow"] = followed
    code, out, err = run(shadow, "2", "--percent", "20", "--url", service.url)
    assert (code, out) == (2, "")
    assert words in err
    assert "start it with SERVING_SHADOW_ALIAS=shadow" in err
    assert registry.aliases == {"production": "1"}
    assert share(registry) is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either a version or --off"),
        (("2", "--off"), "give either a version or --off"),
        (("--off", "--percent", "5"), "--percent goes with a version"),
        (("2", "--percent", "0"), "'0' is not a number above 0, up to 100"),
        (("1",), f"version 1 is in production ({NAME}@production)"),
        (("9",), "has no version 9"),
    ],
)
def test_mistakes_are_told_in_a_line(registry: Registry, run: Run, arguments: tuple[str, ...], words: str):
    code, out, err = run(shadow, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert registry.aliases == {"production": "1"}
