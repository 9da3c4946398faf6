"""`serving.traffic.loaded`: a model in the memory of a worker."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serving.errors import ModelNotReady
from serving.model.prepared import open_prepared
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from tests.support.prepared import take_prepared


@pytest.fixture
def native(registry_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedModel:
    """A model whose calls are made in its own thread."""
    take_prepared(tmp_path, registry_uri)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    (folder,) = (tmp_path / "models" / "wine").glob("1-*")
    return LoadedModel(open_prepared(f"wine:{folder.name}"), Settings(runtime="native"))


async def stays() -> None:
    await asyncio.Event().wait()


def test_a_replaced_model_answers_the_requests_that_it_has_and_ends_with_the_last(
    native: LoadedModel,
) -> None:
    inputs, params = native.decoder.predict(native.examples)
    ask: Callable[[], Awaitable[object]] = lambda: native.predict(inputs, params, stays)  # noqa: E731

    async def main() -> None:
        with native, native:
            native.retire()
            await ask()
            with native:
                pass
            await ask()
        with pytest.raises(ModelNotReady):
            await ask()

    asyncio.run(main())
