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
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from serving.model.state import AutopilotStatus, State
from serving.monitoring.quality.judgement import (
    DEFAULT_CONFIDENCE,
    METRICS,
    Comparison,
    Quality,
    judge,
    to_confidence,
)
from serving.monitoring.quality.metrics import MEANS
from serving.prepare.registry.resolution import AUTOPILOT_TAG, Resolved, Wanted
from serving.prepare.sync.failures import MAX_RETRY_SECONDS
from serving.settings import Settings

log = logging.getLogger("serving.autopilot")

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "autopilot.py"
"""Started by path: it uses the scripts' way to move an alias, which serving code does not import."""

MAX_SECONDS = 120.0
"""Time limit of a move. Its requests to the registry have limits of their own."""


LOOK_SECONDS = 0.1
"""Interval between checks of a move."""

TRACEBACK = "Traceback (most recent call last)"

MAX_TAG_CHARACTERS = 40
"""Of a tag's value, in messages."""

DEFAULT_METRICS = tuple(metrics[0] for metrics in MEANS.values())

Role = Literal["challenger", "shadow"]


class Trouble(Exception):
    """Why the autopilot cannot act; one line."""


class Criterion(NamedTuple):
    """What makes a version better."""

    metric: str | None
    """None takes the default metric of the model's task."""
    confidence: float


class Order(msgspec.Struct, frozen=True):
    """One move, which holds only while the registry still names these versions."""

    champion: str
    contender: str
    """The version to promote or to remove."""
    role: Role
    outcome: Literal["better", "worse"]
    why: str
    """The figures of the verdict."""

    @property
    def what(self) -> tuple[str, ...]:
        """Everything but the figures, which change with each label."""
        return self.champion, self.contender, self.role, self.outcome


def parse_criterion(text: str) -> Criterion | None:
    """Returns the criterion in the tag's value; None if it is off.

    Raises:
        Trouble: it is something else.
    """
    name, separator, rest = text.partition("@")
    name = name.strip().lower()
    try:
        confidence = to_confidence(rest) if separator else DEFAULT_CONFIDENCE
    except ValueError:
        name = ""
    if name in METRICS:
        return Criterion(name, confidence)
    if name == "true":
        return Criterion(None, confidence)
    if text.strip().lower() == "false":
        return None
    raise Trouble(
        f"the tag {AUTOPILOT_TAG} is {text[:MAX_TAG_CHARACTERS]!r}; expected true, false or a metric ({', '.join(METRICS)}), and "
        "optionally a confidence from 0.5 to below 1, such as accuracy@0.99"
    )


def why_not(settings: Settings) -> str:
    """Returns what the service lacks for an autopilot; empty if nothing."""
    if settings.model_version is not None:
        return "this service is pinned to a version; unset SERVING_MODEL_VERSION"
    if settings.model_stage is not None:
        return "it moves aliases, not legacy stages; unset SERVING_MODEL_STAGE and follow an alias"
    if settings.feedback_store is None:
        return "it needs truths to judge by; set SERVING_FEEDBACK_STORE"
    if settings.challenger_alias is None and settings.shadow_alias is None:
        return "it needs a version to judge; set SERVING_CHALLENGER_ALIAS or SERVING_SHADOW_ALIAS"
    return ""


def decide(
    champion: str, contenders: Mapping[Role, str], criterion: Criterion, quality: Quality
) -> Order | None:
    """Returns the move that is due; None if there is none yet.

    Args:
        champion: the version in production.
        contenders: the versions that answer beside it, by role.
        criterion: of the tag.
        quality: the comparisons.

    Raises:
        Trouble: a comparison does not have the metric.
    """
    for role, contender in contenders.items():
        if contender == champion:  # an interrupted move, or somebody else has promoted it
            return Order(champion, contender, role, "better", f"version {champion} is in production")
        for one in quality.of(champion, contender):
            if one.role != role:
                continue
            judgement = judge(one, _choose_metric(one, criterion), criterion.confidence)
            if judgement.verdict.outcome != "not yet":
                return Order(champion, contender, role, judgement.verdict.outcome, str(judgement))
    return None


def _choose_metric(comparison: Comparison, criterion: Criterion) -> str:
    accepted = DEFAULT_METRICS if criterion.metric is None else (criterion.metric,)
    for metric in accepted:
        if metric in comparison.metrics:
            return metric
    there = ", ".join(comparison.metrics) or "nothing"
    raise Trouble(
        f"versions are compared by {there}, not by {' or '.join(accepted)}; correct the tag {AUTOPILOT_TAG}"
    )


class Autopilot:
    """Acts for one service."""

    def __init__(self, quality_file: Path, settings: Settings, stop: threading.Event) -> None:
        """Takes the file with the comparisons, and an event that ends the wait for a move."""
        self._quality_file = quality_file
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
