"""The autopilot: promotes a challenger or shadow that is better than the champion, and removes one that is worse.

    quality.json ── judged after each round ──▶ order ──▶ scripts/autopilot.py (one move, then gone)

The tag `serving.autopilot` of the registered model switches it on. The move has a process of its own, because it needs
MLflow's client. It holds a lock of the feedback store, so that one of all replicas moves, and reads the registry again.
"""

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from serving.model.state import AutopilotStatus, State
from serving.monitoring.feedback.options import quality_path
from serving.monitoring.quality.judgement import Quality
from serving.prepare.registry.resolution import Resolved, Wanted
from serving.prepare.sync.failures import MAX_RETRY_SECONDS
from serving.prepare.sync.verdicts import (
    MAX_TAG_CHARACTERS,
    Criterion,
    Order,
    Role,
    Trouble,
    decide,
    parse_criterion,
    why_not,
)
from serving.settings import Settings

log = logging.getLogger("serving.autopilot")

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "autopilot.py"
"""Started by path: it uses the scripts' way to move an alias, which serving code does not import."""

MAX_SECONDS = 120.0
"""Time limit of a move. Its requests to the registry have limits of their own."""

LOOK_SECONDS = 0.1
"""Interval between checks of a move."""

TRACEBACK = "Traceback (most recent call last)"


class Autopilot:
    """Acts for one service."""

    def __init__(self, run_directory: Path, settings: Settings, stop: threading.Event) -> None:
        """Takes an event that ends the wait for a move, beside what the sync process has."""
        self._quality_file = quality_path(run_directory)
        self._settings = settings
        self._stop = stop
        self._due: tuple[str, ...] | None = None
        """The move that was tried last."""
        self._n_times = 0
        self._next_try = 0.0
        self._failure: Trouble | None = None
        self.status: AutopilotStatus | None = None
        """For `/v1/models`; None if it is off."""

    def act(self, state: State, wanted: Wanted) -> bool:
        """Makes the move that is due; returns whether one was made here.

        Args:
            state: of the service.
            wanted: the versions that the registry names, and the tag.
        """
        tag, before = wanted.autopilot or "", self.status
        has_moved, trouble = False, ""
        try:
            criterion = parse_criterion(tag)
            if criterion is None:
                self.status = None
                return False
            has_moved = self._try(criterion, state, wanted)
        except Trouble as error:
            trouble = str(error)
            if before is None or before.trouble != trouble:
                log.error("autopilot: %s", trouble)  # noqa: TRY400  # no traceback needed
        self.status = AutopilotStatus(tag[:MAX_TAG_CHARACTERS], trouble)
        return has_moved

    def _try(self, criterion: Criterion, state: State, wanted: Wanted) -> bool:
        if why := why_not(self._settings):
            raise Trouble(why)
        order = self._find_order(criterion, state, wanted)
        due = None if order is None else order.what
        if due != self._due:
            self._due, self._n_times, self._next_try, self._failure = due, 0, 0.0, None
        if order is None:
            return False
        if time.monotonic() < self._next_try:
            if self._failure is not None:
                raise self._failure
            return False
        # Also after a try without an error: another replica may hold the lock, and be killed.
        pause = min(self._settings.sync_seconds * 2 ** min(self._n_times, 20), MAX_RETRY_SECONDS)
        self._n_times += 1
        try:
            has_moved = self._move(order)
            self._failure = None
        except Trouble as error:
            self._failure = error
            raise
        finally:
            self._next_try = time.monotonic() + pause
        return has_moved

    def _find_order(self, criterion: Criterion, state: State, wanted: Wanted) -> Order | None:
        if state.stale:
            return None
        champion = wanted.champion.version
        roles: dict[Role, tuple[Resolved | None, str | None]] = {
            "challenger": (wanted.challenger, state.challenger),
            "shadow": (wanted.shadow, state.shadow),
        }
        contenders = {
            role: resolved.version
            for role, (resolved, loaded) in roles.items()
            if resolved is not None and (loaded is not None or resolved.version == champion)
        }
        try:
            quality = msgspec.json.decode(self._quality_file.read_bytes(), type=Quality)
        except OSError:  # nothing was evaluated yet
            quality = Quality()
        except msgspec.MsgspecError as error:
            raise Trouble(f"{self._quality_file.name} cannot be read: {error}") from None
        return decide(champion, contenders, criterion, quality)

    def _move(self, order: Order) -> bool:
        """Returns whether anything was done, which is logged; another replica may do it instead.

        Raises:
            Trouble: it failed.
        """
        try:
            process = subprocess.Popen(  # noqa: S603  # our own script
                [sys.executable, str(SCRIPT), msgspec.json.encode(order).decode()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            raise Trouble(f"cannot start a process: {error.strerror}") from None
        give_up = time.monotonic() + MAX_SECONDS
        while True:
            try:
                out, err = process.communicate(timeout=LOOK_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if self._stop.is_set():
                    return False  # the move ends by itself
                if time.monotonic() > give_up:
                    process.kill()
                    process.communicate()
                    raise Trouble(f"the move took longer than {MAX_SECONDS:g} s, and was ended") from None
        done = out.splitlines()
        for sentence in done:
            log.info("autopilot: %s", sentence)
        if process.returncode:
            if TRACEBACK in err:  # a mistake of ours
                log.error("autopilot: %s", err.strip())
            lines = err.split("\n")
            raise Trouble(
                next(filter(None, reversed(lines)), f"the mover ended with status {process.returncode}")
            )
        return bool(done)
