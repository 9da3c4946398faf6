"""`serving.traffic.shadow`: questions that nobody waits for take nobody's place."""

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from serving.errors import TimedOut
from serving.monitoring.finished import Observer
from serving.runtime import Output
from serving.traffic import shadow
from serving.traffic.routing import SHADOW, Route
from tests.support.manifests import some_manifest

ANSWER = Output(labels=np.array(["no"]))


class Model:
    """A loaded model, as far as the shadow looks at it."""

    def __init__(self, version: str) -> None:
        self.manifest = some_manifest(version=version)
        self.seen: Counter[str] = Counter()
        self.metrics = SimpleNamespace(
            dropped=lambda: self.seen.update(["dropped"]),
            compared=lambda n_rows, n_different: self.seen.update(compared=n_rows, different=n_different),
        )

    def observers(self, role: str) -> tuple[Observer, ...]:
        return ()


async def hang() -> Output:
    await asyncio.sleep(3600)
    return ANSWER


async def time_out() -> Output:
    raise TimedOut


async def answer() -> Output:
    return ANSWER


def route(version: str) -> Any:
    return Route(Model(version), SHADOW)  # type: ignore[arg-type]  # as far as it is looked at


def test_a_shadow_that_hangs_takes_no_place_of_the_next():
    async def main() -> tuple[Counter[str], Counter[str]]:
        asked, hanging, good = shadow.Shadow(), route("2"), route("3")
        for _ in range(150):
            asked.compare(hanging, ANSWER, hang, 100)
        for _ in range(100):
            asked.compare(good, ANSWER, answer, 100)
        for _ in range(400):
            await asyncio.sleep(0)
        for _ in range(100):
            asked.compare(good, ANSWER, answer, 100)
        for _ in range(400):
            await asyncio.sleep(0)
        return hanging.model.seen, good.model.seen

    hanging, good = asyncio.run(main())
    assert hanging == {"dropped": 50}
    assert good == {"compared": 200, "different": 0}


def test_questions_whose_time_is_over_leave_their_places():
    async def main() -> Counter[str]:
        asked, hanging = shadow.Shadow(), route("2")
        for question in (time_out, answer):
            for _ in range(100):
                asked.compare(hanging, ANSWER, question, 100)
            for _ in range(400):
                await asyncio.sleep(0)
        return hanging.model.seen

    assert asyncio.run(main()) == {"compared": 100, "different": 0}


def test_large_questions_wait_up_to_a_limit():
    async def main() -> Counter[str]:
        asked, good = shadow.Shadow(), route("2")
        for _ in range(10):
            asked.compare(good, ANSWER, answer, shadow.MAX_WAITING_BYTES // 4)
        for _ in range(50):
            await asyncio.sleep(0)
        return good.model.seen

    assert asyncio.run(main()) == {"dropped": 6, "compared": 4, "different": 0}


def test_one_question_begins_in_each_turn_of_the_loop():
    begun: list[int] = []
    turn = 0

    async def note() -> Output:
        begun.append(turn)
        return ANSWER

    async def main() -> None:
        nonlocal turn
        asked, good = shadow.Shadow(), route("2")
        for _ in range(20):
            asked.compare(good, ANSWER, note, 1)
        for _ in range(60):
            turn += 1
            await asyncio.sleep(0)

    asyncio.run(main())
    assert len(begun) == 20
    assert max(Counter(begun).values()) == 1
