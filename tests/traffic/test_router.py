"""`serving.traffic.router`: what a worker makes of the state."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from serving.errors import ModelNotReady
from serving.model.state import State, write_state
from serving.process.shutdown import Replacing
from serving.settings import Settings
from serving.traffic.router import Router
from serving.traffic.routing import NO_CHOICE
from tests.support.manifests import some_manifest

TAG = "wine:1-a"


class InMemory(Router):
    """Its models are loaded from nowhere."""

    def _open(self, tag: str) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(tag=tag, manifest=some_manifest(), observers=lambda role: (), drift=None)


def test_the_first_champion_answers_before_the_worker_looks_at_the_state_again(tmp_path: Path):
    """Another worker has seen the state already, and told a caller that the service is ready."""
    router = InMemory(tmp_path, Settings())
    write_state(tmp_path, State(staged=TAG))
    assert asyncio.run(router._follow())
    assert router.current is None
    with pytest.raises(ModelNotReady):
        router.choose(NO_CHOICE)
    write_state(tmp_path, State(champion=TAG))
    assert router.choose(NO_CHOICE).model.tag == TAG
    assert router.model.tag == TAG


def test_the_pages_show_the_first_champion_at_once(tmp_path: Path):
    router = InMemory(tmp_path, Settings())
    write_state(tmp_path, State(staged=TAG))
    assert asyncio.run(router._follow())
    write_state(tmp_path, State(champion=TAG))
    assert router.current is not None
    assert router.model.tag == TAG


@pytest.mark.parametrize(("n_workers", "expected"), [(1, []), (2, ["withdraw", "replace"])])
def test_beside_others_a_worker_that_was_stuck_gives_its_place_away(
    tmp_path: Path, n_workers: int, expected: list[str]
):
    said: list[str] = []
    router = InMemory(tmp_path, Settings(workers=n_workers))

    async def main() -> None:
        router.start(Replacing(lambda: said.append("withdraw"), lambda: said.append("replace")))
        assert not router.sends_away
        router._note_stuck(True)
        assert router.sends_away
        router._note_stuck(False)
        assert not router.sends_away
        await router.stop()

    asyncio.run(main())
    assert said == expected
