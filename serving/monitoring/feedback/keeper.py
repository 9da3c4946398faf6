"""Keeps the store: follows the prediction log, takes feedback, has quality evaluated."""

import logging
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from serving.monitoring.feedback import metrics
from serving.monitoring.feedback.databases import StoreError
from serving.monitoring.feedback.journals import Journals
from serving.monitoring.feedback.messages import Feedback, Invalid
from serving.monitoring.feedback.options import HEADER, STORE_VARIABLE, Options
from serving.monitoring.feedback.store import Store, open_store
from serving.monitoring.prediction_log.files import find_files
from serving.monitoring.reserved import find_space

log = logging.getLogger("serving.feedback")

TICK_SECONDS = 2.0
"""Between two looks at the journals."""

RETRY_SECONDS = 5.0
"""Pause after a failure of the store."""

FILES_SECONDS = 60.0
"""Between two looks for Parquet files that the store does not know, and after a failure."""

IDLE_SECONDS = 3600.0
"""Between two evaluations if nothing changes."""

STATEMENT_SECONDS = 30.0
"""For a statement of PostgreSQL: all feedback waits for it."""

REQUEST_SECONDS = 10.0
"""Time for a worker to go on with a body, which it has as a whole; all feedback waits for one that hangs."""

EVALUATION_SHARE = 0.1
"""Share of the time that evaluations may take."""


class Keeper:
    """The store, and what is done with it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = Path(options.folder)
        self._store: Store | None = None
        self._journals = Journals(self._folder, options.slices)
        self._trouble = ""
        self._retry_at = self._ticked_at = 0.0
        self._catching_up = _Child("serving.monitoring.feedback.catch_up")
        self._evaluating = _Child("serving.monitoring.feedback.evaluator")
        self._look_for_files_at = self._evaluate_at = 0.0
        self._has_changed = True
        self._last_change: list[float | None] = []
        self._clock_offset = time.time() - time.monotonic()

    def tick(self) -> None:
        """Does what is due; called often."""
        now = time.monotonic()
        self._end_children(now)
        if now - self._ticked_at < TICK_SECONDS or now < self._retry_at:
            return
        self._ticked_at = now
        try:
            store = self._open()
            self._follow(store)
            self._start_children(store, now)
        except (StoreError, OSError) as error:
            self._fail(error)
            return
        if self._trouble:
            log.info("feedback is kept again")
            self._trouble = ""
        metrics.failing.set(0)
        find_space()

    def _open(self) -> Store:
        if self._store is None:
            self._store = open_store(os.environ[STORE_VARIABLE], self._folder, STATEMENT_SECONDS)
        self._store.check()
        return self._store

    def _follow(self, store: Store) -> None:
        """Adds the answers that were logged since the last call."""
        for answers in self._journals.read():
            if answers:
                store.add_answers(answers)
                self._has_changed = True

    def _oldest(self, now: float) -> float:
        """Returns the time of what is kept, in seconds since 1970."""
        # A clock that is set forward by mistake must not make all truths old.
        return min(time.time(), self._clock_offset + now) - self._options.keep_seconds

    def _start_children(self, store: Store, now: float) -> None:
        options = msgspec.json.encode(self._options).decode()
        if now >= self._look_for_files_at and not self._catching_up.is_running:
            self._look_for_files_at = now + FILES_SECONDS
            if self._has_new_files(store):
                names = msgspec.json.encode(sorted(self._journals.read_whole)).decode()
                self._catching_up.start(options, names)
        if now >= self._evaluate_at and not self._evaluating.is_running:
            last_change = store.last_change(self._options.model)
            # Windows move on even if nothing changes.
            if (
                self._has_changed
                or last_change != self._last_change
                or now - self._evaluate_at > IDLE_SECONDS
            ):
                self._has_changed, self._last_change = False, last_change
                self._evaluating.start(options, repr(self._oldest(now)))

    def _has_new_files(self, store: Store) -> bool:
        known = store.has_files()
        return any(
            file.path.relative_to(self._folder).as_posix() not in known for file in find_files(self._folder)
        )

    def _end_children(self, now: float) -> None:
        if self._catching_up.has_ended():
            self._has_changed = True
        if self._evaluating.has_ended():
            self._has_changed |= self._evaluating.has_failed
            took = self._evaluating.seconds
            self._evaluate_at = now + max(self._options.quality_seconds, took / EVALUATION_SHARE)

    def _fail(self, error: Exception) -> None:
        reason = str(error)
        if reason != self._trouble:
            log.error("feedback is not kept: %s (retrying)", reason)
        self._trouble = reason
        self._retry_at = time.monotonic() + RETRY_SECONDS
        metrics.failing.set(1)
        if self._store is not None:
            self._store.close()
            self._store = None
        # What was read and not added is in the log.
        self._journals.close()
        self._journals = Journals(self._folder, self._options.slices)

    def answer(self, body: bytes) -> tuple[int, dict[str, Any]]:
        """Keeps feedback; returns the status and the answer, or what is wrong."""
        try:
            feedback = Feedback(body)
            store = self._open()
            self._follow(store)
            answer = feedback.keep(self._options.model, store)
        except Invalid as error:
            return error.status, {"message": str(error)}
        except (StoreError, OSError) as error:
            self._fail(error)
            return 503, {
                "message": "the feedback store does not answer; nothing was kept, send it again later"
            }
        metrics.truths_total.inc(answer["received"])
        metrics.unknown_total.inc(answer["unknown"])
        self._has_changed = True
        return 200, answer

    def close(self) -> None:
        """Adds what was logged last, and ends."""
        try:
            self._follow(self._open())
        except (StoreError, OSError) as error:
            self._fail(error)
        self._journals.close()
        if self._store is not None:
            self._store.close()


class _Child:
    """A process that ends when its work is done."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self.seconds = 0.0
        """That it took."""
        self.has_failed = False

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self, *arguments: str) -> None:
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(  # noqa: S603  # our own module
                [sys.executable, "-m", self._module, *arguments], stdin=subprocess.DEVNULL
            )
        except OSError as error:  # no more processes, for the moment
            log.error("cannot start %s: %s (retrying)", self._module, error)  # noqa: TRY400  # no traceback needed

    def has_ended(self) -> bool:
        """Returns whether it has ended since the last call."""
        if self._process is None or self._process.poll() is None:
            return False
        self.has_failed = self._process.returncode != 0
        if self._process.returncode < 0:  # it had no time to say so itself
            log.error("%s was killed, perhaps because memory ran out (retrying)", self._module)
        self._process = None
        self.seconds = time.monotonic() - self._started
        return True


def receive(listener: socket.socket, keeper: Keeper, parent: int) -> None:
    """Runs until the parent has ended.

    Args:
        listener: the socket through which workers pass on feedback.
        keeper: gets it.
        parent: a file that ends with the parent process.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(parent, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select(TICK_SECONDS / 4):
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    with connection:
                        _answer(connection, keeper)
                elif not os.read(parent, 1024):
                    return
            keeper.tick()


def _answer(connection: socket.socket, keeper: Keeper) -> None:
    """Answers one request: its bytes first, then one JSON text."""
    connection.settimeout(REQUEST_SECONDS)
    try:
        with connection.makefile("rb") as file:
            (n_bytes,) = HEADER.unpack(file.read(HEADER.size))
            body = file.read(n_bytes)
        if len(body) == n_bytes:
            connection.sendall(msgspec.json.encode(keeper.answer(body)))
    except (OSError, struct.error):  # the worker has ended
        return
