"""Watches the calls of a worker's models, and sends the worker's heartbeat."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from serving.traffic.loaded import LoadedModel

log = logging.getLogger("serving.watchdog")

TICK_SECONDS = 0.25

MAX_TICK_SECONDS = 1.0
"""Maximum that one tick counts: a stopped process, or a machine that sleeps, makes no progress in a call."""

GRACE_SECONDS = 10
"""How long a call may overrun its timeout before the worker is replaced."""


class Watchdog:
    """Checks the calls of a worker's models."""

    def __init__(
        self,
        models: Callable[[], Mapping[LoadedModel, bool]],
        beat: Callable[[], None],
        note_stuck: Callable[[bool], None],
        replace: Callable[[], None],
    ) -> None:
        """Takes the models to check, and the actions.

        Args:
            models: those in memory, and whether callers wait for them: a shadow may hang.
            beat: sends a heartbeat.
            note_stuck: called when a call that callers wait for overruns, and when none does any longer.
            replace: starts the shutdown of this worker.
        """
        self._models = models
        self._beat = beat
        self._note_stuck = note_stuck
        self._replace = replace
        self._stuck: set[LoadedModel] = set()
        self._is_stuck = self._is_replacing = False

    async def run(self) -> None:
        """Checks until the worker ends."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = time.monotonic()
            self.look(now - before)
            before = now

    def look(self, seconds: float) -> None:
        """Checks once, `seconds` after the last check."""
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
                    "%s: a call has exceeded %g s (SERVING_REQUEST_TIMEOUT_SECONDS) and is still running; %s",
                    model.tag,
                    limit,
                    f"this worker is not ready, and is replaced unless it ends within {GRACE_SECONDS} s"
                    if is_waited_for
                    else "it gets no requests until the call ends",
                )
            if is_waited_for and taken > limit + GRACE_SECONDS and not self._is_replacing:
                self._is_replacing = True
                log.error("%s: the call does not end; replacing this worker", model.tag)
                self._replace()
        for model in self._stuck - stuck:
            log.info("%s: the call has ended", model.tag)
        self._stuck = stuck
        if does_harm != self._is_stuck:
            self._is_stuck = does_harm
            self._note_stuck(does_harm)
