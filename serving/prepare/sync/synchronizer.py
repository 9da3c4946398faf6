"""One round of the sync process: poll the registry, prepare the versions that it names, swap them in.

A swap takes two steps. First the version is staged: every worker loads it beside the current model, and reports. Once
all have, it becomes the champion, which each worker notices within a fraction of a second; if one worker cannot load
it, it is rejected everywhere.
"""

import datetime as dt
import logging
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from serving.errors import ModelRefused, PrepareError, from_code
from serving.model.digests import DIGEST_TAG
from serving.model.libraries import library_versions
from serving.model.prepared import Prepared, find_prepared, is_prepared, open_prepared
from serving.model.state import Refused, State, read_state, state_path, write_state
from serving.monitoring.swaps import FAILED, REFUSED, SWAPPED, Swaps
from serving.prepare.checks.gate import check_digest, check_libraries, check_signature, check_slowdown
from serving.prepare.checks.trust import check_admission
from serving.prepare.registry.resolution import Resolved, Wanted
from serving.prepare.request import Outcome, PrepareRequest
from serving.prepare.sync.attempts import SUPERSEDED, attempt
from serving.prepare.sync.failures import Failures
from serving.prepare.sync.last_good import LastGood, read_last_good, write_last_good
from serving.prepare.sync.polling import RegistryPoller
from serving.prepare.sync.retention import Retention
from serving.prepare.sync.staging import Superseded, answering_workers, wait_loaded
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.prepare.sync.autopilot import Autopilot

log = logging.getLogger("serving.sync")

MAX_REFUSED = 20
"""Maximum of remembered refused versions; the newest stay."""


class Synchronizer:
    """Follows the registry for one service."""

    def __init__(self, run_directory: Path, settings: Settings, stop: threading.Event) -> None:
        self._run_directory = run_directory
        self._settings = settings
        self._stop = stop
        # Resumes from the state of a killed sync process.
        self._written = read_state(run_directory)
        self._state = self._written or State()
        self._keeper = Retention(settings)
        self._failures = Failures(settings.sync_seconds)
        self._said = ""
        self._said_of: dict[str, str] = {}
        self._refused_tag: str | None = None
        """The prepared model refused last, which must not come back as the last served one."""
        self._semantic_versions = dict(self._state.semantic_versions)
        self._swaps = Swaps(settings.model_name)
        self._n_attempts = 0
        self._asking = RegistryPoller(run_directory, settings, partial(self._attempt, None))
        self._autopilot: Autopilot | None = None
        self.is_hurried = False
        """Whether the next round starts at once."""

    def hurry(self) -> None:
        """Makes the next round poll the registry in any case, after a notification."""
        self._asking.hurry()

    def round(self) -> None:
        """Polls once and applies the answer; failures are in the state and, once, in the log."""
        if self._state.champion is not None and not is_prepared(self._state.champion):
            log.warning("%s is gone from the model store; preparing it again", self._state.champion)
        wanted = None
        try:
            wanted = self._ask()
            wanted, tag = self._find(wanted)
            if not self._stop.is_set():
                self._serve(tag, wanted.champion)
        except Superseded:
            self.is_hurried = True
            return
        except PrepareError as error:
            if not self._stop.is_set():
                self._keep(error)
        if wanted is not None and not self._stop.is_set():
            try:
                self._accompany(wanted)
                self._judge(wanted)
            except Superseded:
                self.is_hurried = True

    def _find(self, wanted: Wanted) -> tuple[Wanted, str]:
        """Returns the registry's answer, and the tag of the prepared champion.

        Preparing takes seconds; if the registry names another version by then, starts over.
        """
        while True:
            tag = self._get_ready(wanted.champion)
            if tag == self._state.champion or self._stop.is_set():
                return wanted, tag
            latest = self._ask()
            if latest.champion.fingerprint == wanted.champion.fingerprint:
                return latest, tag
            wanted = latest

    def _ask(self) -> Wanted:
        return self._asking.ask(is_serving=self._state.champion is not None)

    def _attempt(self, resolved: Resolved | None) -> Outcome:
        request = None if resolved is None else PrepareRequest(resolved, self._state.champion)
        self._n_attempts += 1
        # A unique name: an attempt left by a killed sync process may still write to its own file.
        file = self._run_directory / f"attempt-{os.getpid()}-{self._n_attempts}.json"
        try:
            is_superseded = partial(self._asking.is_superseded, resolved) if resolved else None
            outcome = attempt(file, request, self._settings, self._stop, is_superseded)
        finally:
            file.unlink(missing_ok=True)
        if outcome.code == SUPERSEDED:
            log.info("the registry now names another version")
            raise Superseded(outcome.message)
        return outcome

    def _get_ready(self, resolved: Resolved) -> str:
        """Returns the tag of the prepared version; prepares it if necessary.

        Raises:
            PrepareError: it cannot or must not be served.
        """
        tag = self._find_or_prepare(resolved)
        self._semantic_versions[tag] = resolved.semantic_version or ""
        return tag

    def _find_or_prepare(self, resolved: Resolved) -> str:
        self._failures.check(resolved, self._state.champion)
        found = find_prepared(resolved.name, resolved.version, resolved.source_key, library_versions())
        if found is not None:
            self._admit(found, resolved)
            return found.tag
        log.info("registry: %s version %s (%s)", resolved.name, resolved.version, resolved.because)
        started = time.monotonic()
        outcome = self._attempt(resolved)
        if outcome.tag is None:
            error = from_code(outcome.code, outcome.message)
            self._failed(resolved, error, time.monotonic() - started)
            raise error
        return outcome.tag

    def _admit(self, found: Prepared, resolved: Resolved) -> None:
        """Checks a version that was prepared earlier, perhaps for another champion or other settings.

        Raises:
            ModelRefused: it must not be served here.
        """
        if found.tag in self._state.tags:
            return
        try:
            check_admission(found.manifest, self._settings)
            if found.tag == self._state.previous:
                return  # it has served these callers
            check_digest(found.manifest.digest, resolved.tags.get(DIGEST_TAG))
            check_libraries(found.folder / "mlflow" / "requirements.txt", self._settings.library_versions)
            if self._state.champion is not None:
                champion = open_prepared(self._state.champion)
                check_signature(champion.schema, found.schema, resolved.tags)
                check_slowdown(
                    "a row",
                    champion.manifest.native_seconds,
                    found.manifest.native_seconds,
                    self._settings.max_slowdown,
                )
        except ModelRefused as error:
            self._refused_tag = found.tag
            refusal = ModelRefused(f"{resolved.name!r} version {resolved.version} is refused: {error}")
            self._failed(resolved, refusal, 0)
            raise refusal from error
        except (OSError, msgspec.MsgspecError):
            return  # the champion is gone from the store, and will be prepared again

    def _failed(self, resolved: Resolved, error: PrepareError, seconds: float) -> None:
        """Remembers a failure, and shows it if it is final."""
        is_final = self._failures.add(resolved, self._state.champion, error, seconds)
        self._swaps.count(REFUSED if is_final else FAILED)
        if is_final and not self._stop.is_set():
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            others = [one for one in self._state.refused if one.version != resolved.version]
            refused = (*others, Refused(resolved.version, error.code, str(error), now))
            self._state = msgspec.structs.replace(self._state, refused=refused[-MAX_REFUSED:])

    def _serve(self, tag: str, resolved: Resolved) -> None:
        before = self._state
        refused = tuple(one for one in before.refused if one.version != resolved.version)
        self._failures.forget(resolved, before.champion)
        if tag == before.champion:
            self._write(msgspec.structs.replace(before, staged=None, reason="", stale="", refused=refused))
            return
        log.info("registry: %s version %s (%s), prepared", resolved.name, resolved.version, resolved.because)
        self._stage(tag, resolved)
        if not self._stop.is_set():
            self._commit(
                msgspec.structs.replace(
                    before,
                    champion=tag,
                    challenger=None if before.challenger == tag else before.challenger,
                    shadow=None if before.shadow == tag else before.shadow,
                    staged=None,
                    previous=before.champion,
                    reason="",
                    stale="",
                    refused=refused,
                )
            )

    def _accompany(self, wanted: Wanted) -> None:
        """Prepares challenger and shadow, and gives each its share."""
        roles = {
            "challenger": (wanted.challenger, wanted.challenger_percent),
            "shadow": (wanted.shadow, wanted.shadow_percent),
        }
        # Fast changes first: a new share, or a removed role, does not wait for the other role.
        for role, (resolved, percent) in sorted(roles.items(), key=lambda item: not self._has(*item)):
            tag = self._get_loaded(role, resolved)
            if self._stop.is_set():
                return
            self._give(role, tag, percent if tag else 0)

    def _judge(self, wanted: Wanted) -> None:
        """Lets the autopilot act, if the registered model has its tag."""
        status = None
        if wanted.autopilot is not None and not self._stop.is_set():
            if self._autopilot is None:
                # Most services have none, and do not import it.
                from serving.prepare.sync.autopilot import Autopilot

                self._autopilot = Autopilot(self._run_directory, self._settings, self._stop)
            if self._autopilot.act(self._state, wanted):
                self.hurry()
                self.is_hurried = True
            status = self._autopilot.status
        if status != self._state.autopilot:
            self._write(msgspec.structs.replace(self._state, autopilot=status))

    def _has(self, role: str, wanted: tuple[Resolved | None, float]) -> bool:
        """Whether a role already has its version, or is to have none."""
        resolved, _ = wanted
        if resolved is None:
            return True
        found = find_prepared(resolved.name, resolved.version, resolved.source_key, library_versions())
        return found is not None and found.tag == getattr(self._state, role)

    def _give(self, role: str, tag: str | None, percent: float) -> None:
        before = self._state
        if (tag, percent) != (getattr(before, role), getattr(before, f"{role}_percent")):
            log.info("%s: %s", role, f"{tag}, {percent:g} % of the requests" if tag else "none")
        given = {role: tag, f"{role}_percent": percent, "held_back": dict(self._said_of)}
        self._write(msgspec.structs.replace(before, staged=None, **given))

    def _get_loaded(self, role: str, resolved: Resolved | None) -> str | None:
        """Returns the tag of a role's model once every worker has loaded it; None if there is none."""
        if resolved is None:
            self._said_of.pop(role, None)
            return None
        try:
            tag = self._get_ready(resolved)
            if tag == self._state.champion:
                return None
            if tag not in self._state.tags:
                self._stage(tag, resolved)
        except Superseded:
            raise
        except PrepareError as error:
            if self._said_of.get(role) != str(error) and not self._stop.is_set():
                log.error("no %s: %s", role, error)  # noqa: TRY400  # the attempt's log has the traceback
            self._said_of[role] = str(error)
            return None
        self._said_of.pop(role, None)
        return tag

    def _stage(self, tag: str, resolved: Resolved) -> None:
        """Has every serving worker load a model, and waits until all have.

        Raises:
            PrepareError: see `wait_loaded`.
        """
        answering = answering_workers(self._run_directory)
        if not answering:
            return
        self._write(msgspec.structs.replace(self._state, staged=tag))
        started = time.monotonic()
        self._asking.look_later()
        try:
            wait_loaded(
                self._run_directory,
                tag,
                answering,
                until=started + self._settings.prepare_timeout_seconds,
                stop=self._stop,
                is_superseded=partial(self._asking.is_superseded, resolved),
            )
        except Superseded:
            log.info("the registry now names another version")
            raise
        except PrepareError as error:
            self._failed(resolved, error, time.monotonic() - started)
            raise

    def _commit(self, state: State) -> None:
        assert state.champion is not None
        if self._state.champion is not None:
            self._swaps.count(SWAPPED)
        self._write(state)
        self._said = ""
        log.info("%s answers now", state.champion)
        try:
            write_last_good(self._settings, LastGood(state.champion, state.previous))
        except OSError as error:
            log.warning("cannot record the served model for a start without the registry: %s", error)

    def _keep(self, error: PrepareError) -> None:
        """Keeps the current model, else falls back to the last served one, else stays not ready with a reason."""
        message = str(error)
        champion = self._state.champion
        if champion is None and (last_good := self._find_last_good()) is not None:
            log.warning("serving %s from the last run: %s", last_good.tag, message)
            self._write(
                msgspec.structs.replace(
                    self._state, champion=last_good.tag, previous=last_good.previous, stale=message
                )
            )
            return
        if champion is None:
            self._say("not ready: %s", error)
            self._write(msgspec.structs.replace(self._state, reason=message))
        else:
            self._say(f"keeping {champion}: %s", error)
            self._write(msgspec.structs.replace(self._state, staged=None, stale=message))

    def _say(self, form: str, error: PrepareError) -> None:
        """Logs a reason, unless it was the last one logged."""
        is_final = any(one.reason == str(error) for one in self._state.refused)
        then = "not retried until it changes" if is_final else "retrying"
        if f"{error} ({then})" != self._said:
            log.error(f"{form} (%s)", error, then)  # noqa: G004  # the form is ours
        self._said = f"{error} ({then})"

    def _find_last_good(self) -> LastGood | None:
        found = read_last_good(self._settings)
        if found is None or found.tag == self._refused_tag or not is_prepared(found.tag):
            return None
        try:
            manifest = open_prepared(found.tag).manifest
            check_admission(manifest, self._settings)
        except (OSError, msgspec.MsgspecError, ModelRefused):
            return None
        return found if manifest.libraries == library_versions() else None

    def _write(self, state: State) -> None:
        known = {tag: self._semantic_versions[tag] for tag in state.tags if self._semantic_versions.get(tag)}
        state = msgspec.structs.replace(state, semantic_versions=known)
        if state != self._written or not state_path(self._run_directory).exists():
            write_state(self._run_directory, state)
        self._state = self._written = state
        self._keeper.keep([*state.tags, *([state.previous] if state.previous else [])])
