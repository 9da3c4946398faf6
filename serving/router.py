"""Which model answers: watches the sync process' outcome, loads what it names, swaps it in."""

import asyncio
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec

from serving.batching import Batcher, Gone, forget_frames
from serving.collector import settle
from serving.decoding import JsonDecoder
from serving.errors import ClientGone, InternalError, ModelNotReady, ModelRefusedInput, ServingError
from serving.monitoring import metrics
from serving.openapi import openapi_document
from serving.policy import choose_policy, measure_costs
from serving.prepare.sync import outcome_path, read_outcome
from serving.prepared import Prepared, open_prepared
from serving.runtime import Output, load_runtime
from serving.schema import Inputs
from serving.settings import Settings

log = logging.getLogger("serving.router")

WATCH_SECONDS = 0.2
"""How often a worker looks at the outcome file: one `stat` each."""

RETRY_SECONDS = 2.0
"""How long a worker waits before it tries again to load what it could not load."""


class LoadedModel:
    """A prepared model in memory that has answered its own example."""

    def __init__(self, prepared: Prepared, settings: Settings) -> None:
        """Loads it and predicts its example.

        Raises:
            Exception: whatever the model raises.
        """
        self.manifest = manifest = prepared.manifest
        self.schema = prepared.schema
        self.examples = prepared.examples
        self.decoder = JsonDecoder(self.schema, settings.max_rows)
        self.max_rows = settings.max_rows
        self.runtime_name, self.native_reason = manifest.runtime, manifest.native_reason
        if settings.runtime == "native" and manifest.runtime != "native":
            self.runtime_name, self.native_reason = "native", "SERVING_RUNTIME=native"
        self._runtime = load_runtime(
            self.runtime_name,
            prepared.folder,
            self.schema,
            n_threads=settings.threads_per_worker,
        )
        self.costs = measure_costs(self._runtime.predict, *self.decoder.predict(self.examples))
        policy = choose_policy(
            settings.batching,
            self.costs,
            is_compiled=self.runtime_name == "compiled",
            is_rowwise=manifest.is_rowwise,
            max_batch_rows=settings.max_batch_rows,
            max_queued_requests=settings.max_queued_requests,
        )
        self.metrics = metrics.ModelMetrics(manifest, self.runtime_name, counts_requests=settings.metrics)
        self.batcher = Batcher(self._runtime.predict, policy, self.metrics)
        self.since = time.time()
        self.openapi = msgspec.json.encode(openapi_document(self.manifest, self.schema, self.examples))

    async def predict(self, inputs: Inputs, params: dict[str, Any], gone: Gone) -> Output:
        """Returns what the model says.

        Raises:
            ModelRefusedInput: the model raised.
            QueueFull: too many requests wait already.
            ClientGone: `gone` returned before the call was made.
        """
        try:
            return await self.batcher.predict(inputs, params, gone)
        except (ServingError, ClientGone):
            raise
        except Exception as error:
            log.exception(
                "%s version %s raised on %d row(s)", self.manifest.name, self.manifest.version, inputs.n_rows
            )
            forget_frames(error)
            if isinstance(error, MemoryError):
                raise InternalError("the model ran out of memory") from error
            raise ModelRefusedInput(
                f"the rows fit the signature, and the model refused them with {type(error).__name__}; "
                "the log of the service has the trace"
            ) from error


class Router:
    """Holds the model that answers in this worker."""

    def __init__(self, run_directory: Path, settings: Settings) -> None:
        self._run_directory = run_directory
        self._settings = settings
        self.counts_requests = settings.metrics
        self._tag: str | None = None
        self._task: asyncio.Task[None] | None = None
        self.current: LoadedModel | None = None
        self.reason = "the model is being prepared"
        self.loaded = asyncio.Event()

    @property
    def model(self) -> LoadedModel:
        """The model that answers.

        Raises:
            ModelNotReady: there is none; says why.
        """
        if self.current is None:
            raise ModelNotReady(f"no model is ready: {self.reason}")
        return self.current

    def start(self) -> None:
        """Starts watching, in the running event loop."""
        metrics.model_ready.set(0)
        self._task = asyncio.create_task(self._watch(), name="router")

    async def stop(self) -> None:
        """Stops watching."""
        if self._task is not None:
            self._task.cancel()
        self.flush_metrics()
        if self.current is not None:
            self.current.batcher.close()

    def flush_metrics(self) -> None:
        """Writes what this worker has counted where `/metrics` of every worker finds it."""
        metrics.active.flush()
        if self.current is not None:
            self.current.metrics.flush()

    async def _watch(self) -> None:
        file = outcome_path(self._run_directory)
        parent = os.getppid()
        seen: int | None = None
        while True:
            if os.getppid() != parent:
                # Killed, or it would have ended this worker: nobody would start it again, and the port stays
                # taken.
                log.error("the process that started this worker is gone; ending")
                signal.raise_signal(signal.SIGTERM)
                return
            try:
                changed: int | None = file.stat().st_mtime_ns
            except OSError:
                changed = seen
            if changed != seen:
                is_done = await self._follow(file)
                seen = changed if is_done else None
                if not is_done:
                    await asyncio.sleep(RETRY_SECONDS)
            self.flush_metrics()
            await asyncio.sleep(WATCH_SECONDS)

    async def _follow(self, file: Path) -> bool:
        """Does what the outcome says; returns whether that is done, or has to be tried again."""
        outcome = read_outcome(file)
        if outcome is None:
            return True
        if outcome.tag is None:
            self.reason = outcome.message
            return True
        if outcome.tag == self._tag:
            return True
        try:
            model = await asyncio.to_thread(self._load, outcome.tag)
        except Exception as error:
            reason = f"{outcome.tag} cannot be loaded: {type(error).__name__}; the log has the trace"
            if reason != self.reason:
                log.exception("%s cannot be loaded (trying again every %g s)", outcome.tag, RETRY_SECONDS)
            self.reason = reason
            return False
        self._tag, self.current = outcome.tag, model
        settle()
        metrics.model_ready.set(1)
        self.loaded.set()
        return True

    def _load(self, tag: str) -> LoadedModel:
        return LoadedModel(open_prepared(tag), self._settings)
