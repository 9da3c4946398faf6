"""A worker's own watch over the calls of its models, and its sign of life for those who watch over it."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from serving.traffic.loaded import LoadedModel

log = logging.getLogger("serving.watchdog")

TICK_SECONDS = 0.25

MAX_TICK_SECONDS = 1.0
"""What a tick counts at most: a process that was stopped, or a machine that was asleep, has not worked at a call."""

GRACE_SECONDS = 10
"""How long a call may go on after its time is over, before the worker is replaced."""


class Watchdog:
    """Looks at what the models of a worker are doing."""

    def __init__(
        self,
        models: Callable[[], Mapping[LoadedModel, bool]],
        beat: Callable[[], None],
        note_stuck: Callable[[bool], None],
        replace: Callable[[], None],
    ) -> None:
        """Takes what it looks at, and what it does.

        Args:
            models: those in memory, and whether callers wait for them: a shadow may hang.
            beat: gives a sign of life.
            note_stuck: is told when a call that callers wait for takes too long, and when none does any more.
            replace: begins the end of this worker.
        """
        self._models = models
        self._beat = beat
        self._note_stuck = note_stuck
        self._replace = replace
        self._stuck: set[LoadedModel] = set()
        self._is_stuck = self._is_replacing = False

    async def run(self) -> None:
        """Looks for as long as the worker lives."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            self.look(now - before)
            before = now

    def look(self, seconds: float) -> None:
        """Looks once, so many seconds after the last time."""
        self._beat()
        stuck = set()
        does_harm = False
        for model, is_waited_for in self._models().items():
            taken = model.batcher.pass_time(min(seconds, MAX_TICK_SECONDS))
            if not model.batcher.is_stuck:
                continue
            stuck.add(model)
            does_harm |= is_waited_for
            limit = model.batcher.policy.timeout_seconds
            if model not in self._stuck:
                log.error(
                    "%s: a call has taken more than %g s (SERVING_REQUEST_TIMEOUT_SECONDS) and goes on; %s",
                    model.tag,
                    limit,
                    f"this worker is not ready, and is replaced unless it ends within {GRACE_SECONDS} s"
                    if is_waited_for
                    else "it is asked no more until that ends",
                )
            if is_waited_for and taken > limit + GRACE_SECONDS and not self._is_replacing:
                self._is_replacing = True
                log.error("%s: the call does not end; another worker takes the place of this one", model.tag)
                self._replace()
        for model in self._stuck - stuck:
            log.info("%s: the call has ended", model.tag)
        self._stuck = stuck
        if does_harm != self._is_stuck:
            self._is_stuck = does_harm
            self._note_stuck(does_harm)
