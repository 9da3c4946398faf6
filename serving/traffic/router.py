"""Which model answers: watches the sync process' state, loads what it names, swaps in what it says."""

import asyncio
import contextlib
import logging
import os
import signal
import time
from functools import partial
from pathlib import Path

from serving.errors import ModelNotReady
from serving.model.prepared import STORE_VARIABLE, open_prepared
from serving.model.state import Report, State, read_asked, read_state, state_path, wake, write_report
from serving.monitoring import metrics
from serving.monitoring.reserved import find_space
from serving.process.garbage_collector import give_back, settle
from serving.process.heartbeat import beat
from serving.process.shutdown import Replacing
from serving.process.threads import call_aside
from serving.settings import Settings
from serving.traffic.loaded import LoadedModel
from serving.traffic.routing import CHALLENGER, CHAMPION, SHADOW, Choice, Route, Routes
from serving.traffic.watchdog import Watchdog

log = logging.getLogger("serving.router")

WATCH_SECONDS = 0.1
"""How often a worker looks at the state file: one `stat` each."""

RETRY_SECONDS = 2.0
"""How long a worker waits before it tries again to load what it could not load."""


class Router:
    """Holds the models of this worker."""

    def __init__(self, run_directory: Path, settings: Settings) -> None:
        self._run_directory = run_directory
        self._settings = settings
        self.counts_requests = settings.metrics
        self.publishes_examples = settings.publish_examples
        self._replacing: Replacing | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._models: dict[str, LoadedModel] = {}
        self._retired: list[LoadedModel] = []
        """Those that may be answering a last request."""
        self._broken: dict[str, str] = {}
        self._report: Report | None = None
        aliases = (settings.model_alias, settings.challenger_alias, settings.shadow_alias)
        roles = (CHAMPION, CHALLENGER, SHADOW)
        self._names: dict[str, str] | None = None
        if settings.allow_version_choice:
            self._names = {alias: role for alias, role in zip(aliases, roles, strict=True) if alias}
        self.state = State(reason="the model is being prepared")
        self.routes = Routes()
        self.loaded = asyncio.Event()
        self.is_sealed = STORE_VARIABLE in os.environ
        """Whether the model is inside this Bento, and no registry is asked."""
        self.is_ending = False
        """Whether the worker ends soon, and is not ready any more."""
        self._trouble: str | None = None
        self._metrics_trouble: str | None = None
        """What was logged last of why this worker cannot follow, and of why its metrics are not shown."""
        self._is_stuck = False
        """Whether a call that callers wait for takes longer than any request may."""
        self.had_large_request = False
        """Whether one has left holes in the memory that are worth giving back."""

    @property
    def aliases(self) -> dict[str, str | None]:
        """The alias that each role follows; None of one that is not followed."""
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
            raise ModelNotReady("a call of the model does not end (SERVING_REQUEST_TIMEOUT_SECONDS)")
        return champion

    @property
    def sends_away(self) -> bool:
        """Whether the next request of a client is better made on another connection, which may be another worker's."""
        return self.is_ending or self._is_stuck

    def _note_stuck(self, is_stuck: bool) -> None:
        was_stuck, self._is_stuck = self._is_stuck, is_stuck
        metrics.model_ready.set(0 if is_stuck or self.routes.champion is None else 1)
        if self._settings.workers == 1 or self._replacing is None:
            return
        # Answering 503 at once, it would get more new connections than those who work.
        if is_stuck:
            self._replacing.withdraw()
        elif was_stuck:
            self._replacing.replace()

    def _watched(self) -> dict[LoadedModel, bool]:
        """The models in memory, and whether a call of theirs that does not end does harm."""
        self._retired = [model for model in self._retired if model.batcher.is_calling]
        shadow = self.routes.shadow
        ours = (*self._models.values(), *self._retired)
        return {model: shadow is None or model is not shadow.model for model in ours}

    @property
    def champion_labels(self) -> tuple[str, str, str]:
        """Name, version and role, for the metrics of requests that never came to a model."""
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
        """Returns the shadow, if it is to be asked what this route was asked."""
        routes = self.routes
        return (
            routes.shadow if routes.shadow_percent and route is routes.champion and routes.mirrors() else None
        )

    @property
    def reason(self) -> str:
        """Why no model answers."""
        champion = self.state.champion
        if champion is None:
            return self.state.reason or "the model is being prepared"
        return (
            f"{champion} {self._broken[champion]}"
            if champion in self._broken
            else "the model is being loaded"
        )

    def end(self) -> None:
        """Says from now on that it is not ready; requests are still answered."""
        log.info("shutting down")
        self.is_ending = True

    def start(self, replacing: Replacing | None = None) -> None:
        """Starts watching, in the running event loop.

        Args:
            replacing: how this worker ends when its model is stuck; None where it is nobody's worker.
        """
        metrics.model_ready.set(0)
        self._replacing = replacing
        replace = replacing.replace if replacing else lambda: None
        watchdog = Watchdog(self._watched, partial(beat, self._run_directory), self._note_stuck, replace)
        self._tasks = [asyncio.create_task(task) for task in (self._watch(), watchdog.run())]

    async def wait_loaded(self, seconds: float) -> None:
        """Waits until the model answers, where there is one.

        A worker that was started again beside others would take connections of theirs, with nothing to answer with.
        """
        state = read_state(self._run_directory)
        if state is not None and state.champion is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.loaded.wait(), seconds)

    async def stop(self) -> None:
        """Stops watching."""
        for task in self._tasks:
            task.cancel()
        self.flush_metrics()
        for model in self._models.values():
            model.batcher.close()

    @property
    def registry_asked_at(self) -> float | None:
        """When the registry answered last, in seconds since 1970; None where it never did."""
        return read_asked(self._run_directory)

    def synchronize(self) -> None:
        """Makes the sync process ask the registry at once."""
        wake(self._run_directory)

    def flush_metrics(self) -> None:
        """Writes what this worker has counted where `/metrics` of every worker finds it."""
        trouble = find_space()
        if trouble != self._metrics_trouble:
            self._metrics_trouble = trouble
            if trouble is None:
                log.info("there is space for the metrics of this worker again")
            else:
                log.error(
                    "the metrics of this worker are not shown, there is no space for them in %s: %s (trying again)",
                    self._run_directory,
                    trouble,
                )
        metrics.active.flush()
        for model in self._models.values():
            model.metrics.flush()

    async def _watch(self) -> None:
        parent = os.getppid()
        seen: tuple[int, int] | None = None
        while True:
            if os.getppid() != parent:
                # Killed, or it would have ended this worker: nobody would start it again, and the port stays
                # taken.
                log.error("the process that started this worker is gone; ending")
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
                # Of a full disk, for one: whoever does not watch follows no promotion any more.
                if str(error) != self._trouble:
                    self._trouble = str(error)
                    log.error(  # noqa: TRY400  # a full disk needs no trace
                        "this worker cannot follow what %s says: %s (trying again every %g s)",
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
        """Returns what changes with the state; None where there is none."""
        try:
            status = state_path(self._run_directory).stat()
        except OSError:
            return None
        # The inode, too: each state is a file of its own, and a clock may be set back.
        return status.st_ino, status.st_mtime_ns

    async def _follow(self) -> bool:
        """Does what the state says; returns whether that is done, or has to be tried again."""
        state = read_state(self._run_directory)
        if state is None:
            return True
        self.state = state
        self._broken = {tag: why for tag, why in self._broken.items() if tag in state.tags}
        for tag in state.tags:
            if tag not in self._models and not (tag == state.staged and tag in self._broken):
                await self._load(tag)
            if tag == state.champion:
                # Before others are loaded: that takes a while, and this one may be all there is.
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
        """Lets the first champion answer as soon as it may.

        Another worker may have seen the state a moment earlier, and said that the service is ready.
        """
        state = read_state(self._run_directory)
        if state is not None and state.champion in self._models:
            self.state = state
            self._swap(state)

    async def _load(self, tag: str) -> None:
        """Loads a model, unless the state names it no more before that is done: the next one must not wait."""
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
        return LoadedModel(open_prepared(tag), self._settings)

    def _swap(self, state: State) -> None:
        """Lets the models answer that the state gives a role, as far as they are loaded."""
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
        )
        metrics.model_ready.set(1)
        self.loaded.set()
        self._tell()

    def _tell(self) -> None:
        """Reports to the sync process, if there is news."""
        report = Report(
            os.getpid(), self.current.tag if self.current else None, tuple(self._models), dict(self._broken)
        )
        if report != self._report:
            write_report(self._run_directory, report)
            self._report = report


def _let_go(loading: "asyncio.Future[LoadedModel]") -> None:
    """Forgets a model that was loaded in vain."""
    if loading.exception() is None:
        loading.result().retire()


def why_not_loaded(error: Exception) -> str:
    """Returns the words that say why a prepared model cannot be used."""
    if isinstance(error, PermissionError):
        return (
            "cannot be loaded: PermissionError; the log of the worker has the trace; SERVING_READABLE_PATHS names the "
            "files that a worker may read"
        )
    return f"cannot be loaded: {type(error).__name__}; the log of the worker has the trace"
