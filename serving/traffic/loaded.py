"""A prepared model in the memory of a worker."""

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from serving.batching.batcher import Batcher, Gone
from serving.batching.policy import choose_policy, measure_costs
from serving.codecs.json import JsonDecoder
from serving.errors import ClientGone, InternalError, ModelRefusedInput, ServingError
from serving.model.prepared import Prepared
from serving.model.schema import Inputs
from serving.monitoring import metrics
from serving.monitoring.finished import Observer
from serving.monitoring.tracing.timeline import Timeline
from serving.process.cpus import count_cpus
from serving.process.garbage_collector import forget_frames
from serving.process.logs import BY_CALLERS, Sparing, origin
from serving.runtime import Output, WrongRowCount, load_runtime
from serving.runtime.trusted import Trust
from serving.settings import Settings

if TYPE_CHECKING:
    from serving.monitoring.drift.monitor import Monitor

log = logging.getLogger("serving.loaded")

_sparing = Sparing()


class LoadedModel:
    """A prepared model in memory that has predicted its own example.

    Requests use it in a `with` statement: a replaced model is released after its last request.
    """

    def __init__(self, prepared: Prepared, settings: Settings, run_directory: Path | None = None) -> None:
        """Loads it and predicts its example.

        Args:
            prepared: the model.
            settings: of the service.
            run_directory: shared by the workers; default: what is counted for drift stays in this process.

        Raises:
            Exception: whatever the model raises.
        """
        self.tag = prepared.tag
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
            Trust.of(manifest),
            n_threads=settings.threads or max(1, count_cpus() // settings.workers),
            is_per_row=manifest.is_per_row and settings.answer_rows == "same",
        )
        self.costs = measure_costs(self._runtime.predict, *self.decoder.predict(self.examples))
        policy = choose_policy(
            # Without one result per row, a shared call's results cannot be split.
            settings.batching if manifest.is_per_row else "off",
            self.costs,
            is_compiled=self.runtime_name == "compiled",
            is_rowwise=manifest.is_rowwise,
            max_batch_rows=settings.max_batch_rows,
            max_queued_requests=settings.max_queued_requests,
            timeout_seconds=settings.request_timeout_seconds,
        )
        if policy.batches and not manifest.is_rowwise:
            log.warning(
                "%s version %s: answers depend on the other rows in a call, but requests share calls "
                "(SERVING_BATCHING=on)",
                manifest.name,
                manifest.version,
            )
        self.metrics = metrics.ModelMetrics(manifest, self.runtime_name, counts_requests=settings.metrics)
        self.batcher = Batcher(self._runtime.predict, policy, self.metrics)
        self.drift = _watch_drift(prepared, settings, run_directory)
        self._logs_traces = settings.log_traces
        self._n_users, self._is_retired = 0, False
        self.since = time.time()

    def __enter__(self) -> Self:
        self._n_users += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._n_users -= 1
        if self._is_retired and not self._n_users:
            self._close()

    def retire(self) -> None:
        """Closes the model after its last request."""
        self._is_retired = True
        if not self._n_users:
            self._close()

    def _close(self) -> None:
        self.batcher.close()
        self.metrics.close()
        if self.drift:
            self.drift.close()

    def observers(self, role: str) -> tuple[Observer, ...]:
        """Returns what observes the model's answers in a role."""
        counted = self.metrics.role(role)
        drift = (self.drift.observe,) if self.drift else ()
        return (counted.observe, *drift) if self.metrics.counts_requests else drift

    def flush(self, *, is_forced: bool = False) -> None:
        """Writes what was observed where every worker finds it."""
        self.metrics.flush()
        if self.drift:
            self.drift.flush(is_forced=is_forced)

    async def predict(
        self,
        inputs: Inputs,
        params: dict[str, Any],
        gone: Gone,
        *,
        deadline: float | None = None,
        request_id: str = "",
        timeline: Timeline | None = None,
    ) -> Output:
        """Returns the model's answer.

        Args:
            inputs: the rows.
            params: of the request.
            gone: returns when the client has disconnected.
            deadline: of the request, see `Batcher.predict`.
            request_id: for the log.
            timeline: see `Batcher.predict`.

        Raises:
            ModelRefusedInput: the model raised.
            QueueFull: the queue is full.
            ModelBusy: the deadline passed before the call started.
            TimedOut: the deadline passed during the call.
            ClientGone: `gone` returned before the call started.
        """
        try:
            return await self.batcher.predict(inputs, params, gone, deadline, timeline)
        except (ServingError, ClientGone):
            raise
        except Exception as error:
            kind, where = origin(error)
            ending = _sparing.admit(self.tag, kind, where)
            if ending is not None:
                log.error(  # noqa: TRY400  # traceback only if enabled
                    "%s version %s raised %s on %d row(s) of request %s, %s%s",
                    self.manifest.name,
                    self.manifest.version,
                    kind,
                    inputs.n_rows,
                    request_id,
                    where,
                    ending,
                    exc_info=error if self._logs_traces else None,
                    extra=BY_CALLERS,
                )
            forget_frames(error)
            if isinstance(error, MemoryError):
                raise InternalError("the model ran out of memory") from error
            if isinstance(error, WrongRowCount):
                raise ModelRefusedInput(f"the rows fit the signature, but {error}") from error
            raise ModelRefusedInput(
                f"the rows fit the signature, but the model raised {kind}; the log of the service says where"
            ) from error


def _watch_drift(prepared: Prepared, settings: Settings, run_directory: Path | None) -> "Monitor | None":
    if not settings.monitored_features:
        return None
    from serving.monitoring.drift.monitor import Monitor

    return Monitor(
        prepared,
        run_directory / "drift" if run_directory else None,
        n_inputs=settings.monitored_features,
        window_seconds=settings.drift_window_seconds,
        shows_values=settings.publish_examples,
    )
