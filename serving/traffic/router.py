"""Watches the sync process' state, loads the models that it names, and swaps them in."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from serving.errors import ModelNotReady
from serving.model.prepared import STORE_VARIABLE, open_prepared
from serving.model.state import Report, State, read_asked, read_state, state_path, wake, write_report
from serving.monitoring import metrics
from serving.monitoring.process import ProcessMetrics
from serving.monitoring.reserved import find_space
from serving.process.garbage_collector import give_back, settle
from serving.process.heartbeat import beat
from serving.process.shutdown import Replacing
from serving.process.threads import call_aside
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from serving.traffic.routing import CHALLENGER, CHAMPION, SHADOW, Choice, Route, Routes
from serving.traffic.watchdog import Watchdog

if TYPE_CHECKING:
    from serving.monitoring.prediction_log.recorder import PredictionLog

log = logging.getLogger("serving.router")

WATCH_SECONDS = 0.1
"""Interval of a worker's check of the state file: one `stat` each."""

RETRY_SECONDS = 2.0
"""Pause before a worker retries a failed load."""


class Router:
    """Holds the models of this worker."""

    def __init__(self, run_directory: Path, settings: Settings) -> None:
        self._run_directory = run_directory
        self._settings = settings
        self.counts_requests = settings.metrics
        self.publishes_examples = settings.publish_examples
        self._replacing: Replacing | None = None
        self._process: ProcessMetrics | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._models: dict[str, LoadedModel] = {}
        self._retired: list[LoadedModel] = []
        """Models that may still be answering a last request."""
        self._broken: dict[str, str] = {}
        self._report: Report | None = None
        self._prediction_log = _open_log(run_directory, settings)
        aliases = (settings.model_alias, settings.challenger_alias, settings.shadow_alias)
        roles = (CHAMPION, CHALLENGER, SHADOW)
        self._names: dict[str, str] | None = None
        if settings.allow_version_choice:
            self._names = {alias: role for alias, role in zip(aliases, roles, strict=True) if alias}
        self.state = State(reason="the model is being prepared")
        self.routes = Routes()
        self.loaded = asyncio.Event()
        self.is_sealed = STORE_VARIABLE in os.environ
        """Whether the model is inside this Bento, without a registry."""
        self.is_ending = False
        """Whether the worker is shutting down, and no longer ready."""
        self._trouble: str | None = None
        self._metrics_trouble: str | None = None
        """The last logged reasons why this worker cannot follow the state, and why its metrics are not shown."""
        self._is_stuck = False
        """Whether a call that callers wait for exceeds the request timeout."""
        self.had_large_request = False
        """Whether one has left freed memory to return to the system."""

    @property
    def aliases(self) -> dict[str, str | None]:
        """The alias that each role follows; None if it follows none."""
        one = self._settings
        followed = one.model_alias if one.model_version is None and one.model_stage is None else None
        return {"champion": followed, "challenger": one.challenger_alias, "shadow": one.shadow_alias}

    @property
    def current(self) -> LoadedModel | None:
        """The champion, if there is one."""
        if self.routes.champion is None:
            self._catch_up()
        champion = self.routes.champion
        return champion.model if champion else None

    @property
    def model(self) -> LoadedModel:
        """The champion.

        Raises:
            ModelNotReady: there is none; says why.
        """
        if self.is_ending:
            raise ModelNotReady("the service is shutting down")
        champion = self.current
        if champion is None:
            raise ModelNotReady(f"no model is ready: {self.reason}")
        if self._is_stuck:
            raise ModelNotReady("a model call exceeds its timeout (SERVING_REQUEST_TIMEOUT_SECONDS)")
        return champion

    @property
    def sends_away(self) -> bool:
        """Whether a client's next request should use a new connection, which may reach another worker."""
        return self.is_ending or self._is_stuck

    def _note_stuck(self, is_stuck: bool) -> None:
        was_stuck, self._is_stuck = self._is_stuck, is_stuck
        metrics.model_ready.set(0 if is_stuck or self.routes.champion is None else 1)
        if self._settings.workers == 1 or self._replacing is None:
            return
        # Fast 503s would attract more new connections than the other workers get.
        if is_stuck:
            self._replacing.withdraw()
        elif was_stuck:
            self._replacing.replace()

    def _watched(self) -> dict[LoadedModel, bool]:
        """The models in memory, and whether a stuck call of theirs does harm."""
        self._retired = [model for model in self._retired if model.batcher.is_calling]
        shadow = self.routes.shadow
        ours = (*self._models.values(), *self._retired)
        return {model: shadow is None or model is not shadow.model for model in ours}

    @property
    def champion_labels(self) -> tuple[str, str, str]:
        """Name, version and role, for the metrics of requests that never reached a model."""
        manifest = self.current.manifest if self.current else None
        return (manifest.name, manifest.version, CHAMPION) if manifest else ("", "", CHAMPION)

    def choose(self, choice: Choice) -> Route:
        """Returns the route of a request.

        Raises:
            ModelNotReady: there is no model; says why.
            ServingError: see `Routes.choose`.
        """
        if self.routes.champion is None and self.current is None:
            raise ModelNotReady(f"no model is ready: {self.reason}")
        return self.routes.choose(choice)

    def shadow_of(self, route: Route) -> Route | None:
        """Returns the shadow, if this route's request is to be copied to it."""
        routes = self.routes
        return (
            routes.shadow if routes.shadow_percent and route is routes.champion and routes.mirrors() else None
        )

    @property
    def reason(self) -> str:
        """Why no model is ready."""
        champion = self.state.champion
        if champion is None:
            return self.state.reason or "the model is being prepared"
        return (
            f"{champion} {self._broken[champion]}"
            if champion in self._broken
            else "the model is being loaded"
        )

    def end(self) -> None:
        """Makes the worker not ready; requests are still answered."""
        log.info("shutting down")
        self.is_ending = True

    def start(self, replacing: Replacing | None = None) -> None:
        """Starts watching, in the running event loop.

        Args:
            replacing: how this worker ends when its model is stuck; None if it has no process manager.
        """
        metrics.model_ready.set(0)
        self._process = ProcessMetrics()
        if self._prediction_log:
            self._prediction_log.start()
        self._replacing = replacing
        replace = replacing.replace if replacing else lambda: None
        watchdog = Watchdog(self._watched, partial(beat, self._run_directory), self._note_stuck, replace)
        self._tasks = [asyncio.create_task(task) for task in (self._watch(), watchdog.run())]

    async def wait_loaded(self, seconds: float) -> None:
        """Waits until the model is loaded, if the state names one.

        Without waiting, a restarted worker would take connections from the others, and could not answer them.
        """
        state = read_state(self._run_directory)
        if state is not None and state.champion is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.loaded.wait(), seconds)

    async def stop(self) -> None:
        """Stops watching."""
        for task in self._tasks:
            task.cancel()
        if self._prediction_log:
            await asyncio.to_thread(self._prediction_log.close)
        self.flush_metrics()
        for model in self._models.values():
            model.flush(is_forced=True)
            model.batcher.close()

    @property
    def registry_asked_at(self) -> float | None:
        """When the registry answered last, in seconds since 1970; None if it never did."""
        return read_asked(self._run_directory)

    def synchronize(self) -> None:
        """Makes the sync process poll the registry at once."""
        wake(self._run_directory)

    def flush_metrics(self) -> None:
        """Writes this worker's counts to where `/metrics` of every worker finds them."""
        trouble = find_space()
        if trouble != self._metrics_trouble:
            self._metrics_trouble = trouble
            if trouble is None:
                log.info("metrics of this worker are shown again: there is enough space")
            else:
                log.error(
                    "metrics of this worker are not shown: no space in %s: %s (retrying)",
                    self._run_directory,
                    trouble,
                )
        metrics.active.flush()
        if self._process is not None:
            self._process.flush()
        if self._prediction_log:
            self._prediction_log.flush()
        for model in self._models.values():
            model.flush()

    async def _watch(self) -> None:
        parent = os.getppid()
        seen: tuple[int, int] | None = None
        while True:
            if os.getppid() != parent:
                # The parent was killed, else it would have ended this worker. Staying would keep the port in use,
                # and nobody would restart the worker.
                log.error("the parent process has ended; shutting down")
                signal.raise_signal(signal.SIGTERM)
                return
            now = self.look() or seen
            try:
                self.flush_metrics()
                if now != seen:
                    is_done = await self._follow()
                    seen = now if is_done else None
                    if not is_done:
                        await asyncio.sleep(RETRY_SECONDS)
                if self.had_large_request and not metrics.active.count:
                    self.had_large_request = False
                    await asyncio.to_thread(give_back)
                self._trouble = None
            except Exception as error:  # it is logged
                # A full disk, for example. Without this, the worker would stop following promotions.
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    log.error(  # noqa: TRY400  # a full disk needs no traceback
                        "this worker cannot follow the state in %s: %s (retrying every %g s)",
                        self._run_directory,
                        error,
                        RETRY_SECONDS,
                        exc_info=None if isinstance(error, OSError) else error,
                    )
                seen = None
                await asyncio.sleep(RETRY_SECONDS)
            due = time.perf_counter() + WATCH_SECONDS
            await asyncio.sleep(WATCH_SECONDS)
            if self.counts_requests:
                metrics.loop_delay_seconds.observe(max(time.perf_counter() - due, 0))

    def look(self) -> tuple[int, int] | None:
        """Returns a value that changes with the state; None if there is no state."""
        try:
            status = state_path(self._run_directory).stat()
        except OSError:
            return None
        # The inode, too: each state is a new file, and a clock may be set back.
        return status.st_ino, status.st_mtime_ns

    async def _follow(self) -> bool:
        """Applies the state; returns False if it must be retried."""
        state = read_state(self._run_directory)
        if state is None:
            return True
        self.state = state
        self._broken = {tag: why for tag, why in self._broken.items() if tag in state.tags}
        for tag in state.tags:
            if tag not in self._models and not (tag == state.staged and tag in self._broken):
                await self._load(tag)
            if tag == state.champion:
                # Before loading others: that takes a while, and the champion may be the only model.
                self._swap(state)
        self._swap(state)
        answering = {route.model.tag for route in self.routes.all}
        for tag in [tag for tag in self._models if tag not in state.tags and tag not in answering]:
            retired = self._models.pop(tag)
            retired.retire()
            self._retired.append(retired)
            settle(has_let_go=True)
        metrics.stale.set(bool(state.stale))
        self._tell()
        return all(tag in self._models for tag in state.tags if tag != state.staged)

    def _catch_up(self) -> None:
        """Lets the first champion answer as soon as the state names it.

        Another worker may have read the state a moment earlier, and reported ready.
        """
        state = read_state(self._run_directory)
        if state is not None and state.champion in self._models:
            self.state = state
            self._swap(state)

    async def _load(self, tag: str) -> None:
        """Loads a model; abandons it if the state no longer names it, so that the next one need not wait."""
        loading = call_aside(partial(self._open, tag))
        while not (await asyncio.wait({loading}, timeout=WATCH_SECONDS))[0]:
            state = read_state(self._run_directory)
            if state is not None and tag not in state.tags:
                loading.add_done_callback(_let_go)
                return
        try:
            model = loading.result()
        except Exception as error:
            why = why_not_loaded(error)
            if self._broken.get(tag) != why:
                log.exception("%s cannot be loaded", tag)
            self._broken[tag] = why
        else:
            self._broken.pop(tag, None)
            self._models[tag] = model
            settle()

    def _open(self, tag: str) -> LoadedModel:
        return LoadedModel(open_prepared(tag), self._settings, self._run_directory)

    def _swap(self, state: State) -> None:
        """Gives the loaded models their roles in the state."""
        champion = self._models.get(state.champion or "")
        if champion is None:
            return
        self.routes = Routes(
            champion,
            challenger=self._models.get(state.challenger or ""),
            challenger_percent=state.challenger_percent,
            shadow=self._models.get(state.shadow or ""),
            shadow_percent=state.shadow_percent,
            names=self._names,
            semantic_versions=state.semantic_versions,
            observers=(self._prediction_log.observe,) if self._prediction_log else (),
        )
        metrics.model_ready.set(1)
        self.loaded.set()
        self._tell()

    def _tell(self) -> None:
        """Reports changes to the sync process."""
        report = Report(
            os.getpid(), self.current.tag if self.current else None, tuple(self._models), dict(self._broken)
        )
        if report != self._report:
            write_report(self._run_directory, report)
            self._report = report


def _open_log(run_directory: Path, settings: Settings) -> "PredictionLog | None":
    if settings.log_predictions is None:
        return None
    from serving.monitoring.prediction_log.recorder import PredictionLog

    return PredictionLog(run_directory, settings)


def _let_go(loading: "asyncio.Future[LoadedModel]") -> None:
    """Releases a model that is no longer needed."""
    if loading.exception() is None:
        loading.result().retire()


def why_not_loaded(error: Exception) -> str:
    """Returns why a prepared model cannot be used, as the end of a sentence."""
    if isinstance(error, PermissionError):
        return (
            "cannot be loaded: PermissionError; the log of the worker has the trace; SERVING_READABLE_PATHS names the "
            "files that a worker may read"
        )
    return f"cannot be loaded: {type(error).__name__}; the log of the worker has the trace"
