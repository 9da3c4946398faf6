"""The BentoML service: endpoints, probes, lifecycle. Wiring only; the parts are in `serving/`."""

import asyncio
import atexit
import contextlib
import functools
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.settings import (
    RUN_DIRECTORY_VARIABLE,
    SettingsError,
    load_settings,
    unknown_variables,
)

try:
    settings = load_settings()
except SettingsError as error:
    sys.exit(f"error: {error}")

RUN_DIRECTORY = os.environ.get(RUN_DIRECTORY_VARIABLE)
if RUN_DIRECTORY is not None:
    # A private folder: all services of a user share BentoML's default, and each empties it.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(Path(RUN_DIRECTORY) / "metrics")

import bentoml  # noqa: E402  # after the settings, so that an error in them is the first line
import msgspec  # noqa: E402
import numpy as np  # noqa: E402
from bentoml import server_context  # noqa: E402

from serving.codecs import limits  # noqa: E402
from serving.codecs.json_answers import encode_hook  # noqa: E402
from serving.codecs.media_types import JSON  # noqa: E402
from serving.errors import ModelRefused  # noqa: E402
from serving.http.gateway import App, Gateway  # noqa: E402
from serving.http.greeting import greeting  # noqa: E402
from serving.model.prepared import STORE_VARIABLE, model_store, open_prepared  # noqa: E402
from serving.model.sealed import find_sealed  # noqa: E402
from serving.model.state import State, make_wake_pipe, write_state  # noqa: E402
from serving.monitoring.tracing.options import certificate_files  # noqa: E402
from serving.monitoring.tracing.request_log import RequestLog  # noqa: E402
from serving.monitoring.tracing.requests import Requests  # noqa: E402
from serving.process.address import wanted_address, why_not_listen  # noqa: E402
from serving.process.bentoml_options import ignored_options  # noqa: E402
from serving.process.companion import Companion  # noqa: E402
from serving.process.control_sockets import remove_unix_sockets, use_unix_sockets  # noqa: E402
from serving.process.garbage_collector import give_back_blocks  # noqa: E402
from serving.process.heartbeat import watch_over_workers  # noqa: E402
from serving.process.in_flight import Claim, InFlight  # noqa: E402
from serving.process.logs import configure_bentoml, configure_logging  # noqa: E402
from serving.process.memory import requests_bytes  # noqa: E402
from serving.process.respawn import replace_ended_workers  # noqa: E402
from serving.process.sandbox import WRITABLE, confine, without_secrets  # noqa: E402
from serving.process.shutdown import end_gracefully  # noqa: E402
from serving.protocols import v1  # noqa: E402
from serving.protocols.endpoint import Request, answer, never  # noqa: E402
from serving.traffic.router import Router  # noqa: E402
from serving.traffic.watchdog import GRACE_SECONDS  # noqa: E402

if TYPE_CHECKING:
    from serving.http.feedback import Feedback

configure_logging(settings.log_format, with_values=settings.log_traces)
if settings.log_format == "json":
    from bentoml._internal.log import SERVER_LOGGING_CONFIG

    configure_bentoml(SERVER_LOGGING_CONFIG, with_values=settings.log_traces)
log = logging.getLogger("serving.service")


IS_CONFINED = sys.platform == "linux" and not settings.allow_pickle
"""Whether workers drop access to files and credentials; code inside a model may need them."""


def new_run_directory() -> Path:
    """Returns a new folder that the processes of one running service share."""
    folder = Path(tempfile.mkdtemp(prefix="serving-"))
    for name in WRITABLE:
        (folder / name).mkdir()
    make_wake_pipe(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def find_ignored_options() -> dict[str, str | None]:
    """Returns the options of `BENTOML_CONFIG` without effect here, each with its replacement."""
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.configuration.helpers import get_default_config
    from bentoml._internal.utils import deep_merge

    service: bentoml.Service[Any] = ModelServer
    wanted = BentoMLContainer.config.get()["services"].get(service.name, {})
    return ignored_options(wanted, deep_merge(get_default_config(version=2)["services"], service.config))


class GatewayService(bentoml.Service[Any]):
    """A BentoML service with our gateway in front of BentoML's application."""

    def to_asgi(self, is_main: bool = True) -> App:
        """Returns the application that BentoML's worker runs."""
        # In workers only: the HTTP modules take 5 MB.
        from serving.http.connection import use_limits
        from serving.http.connections import Connections

        use_limits(Connections(settings.max_connections, settings.header_seconds, settings.body_seconds))
        give_back_blocks()
        megabytes = settings.request_memory_mb
        limits.limit_requests(int(megabytes * 1e6) if megabytes else requests_bytes(settings.workers))
        make_bentoml_app: Callable[[], App] = functools.partial(super().to_asgi, is_main)
        secret = settings.webhook_secret
        requests = Requests(RequestLog(settings.slow_request_seconds, settings.log_requests_percent))
        gateway = Gateway(
            router,
            make_bentoml_app,
            Worker(self, requests),
            settings.max_body_bytes,
            secret.get_secret_value() if secret else None,
            requests=requests,
            feedback=make_feedback(),
        )
        if not settings.cors_origin_names:
            return gateway
        from serving.http.cors import allow_origins

        return allow_origins(gateway, settings.cors_origin_names)


def make_feedback() -> "Feedback | None":
    """Returns a worker's end of the truth loop; None if it is off."""
    if settings.feedback_store is None or RUN_DIRECTORY is None:
        return None
    from serving.http.feedback import Feedback

    return Feedback(Path(RUN_DIRECTORY))


def _request(body: bytes) -> Request:
    """Returns an in-process request."""
    return Request(body, JSON, "", never, Claim(InFlight(limits.request_bytes)))


LOAD_SECONDS = 30
"""How long a worker with a prepared model waits for it to load before it accepts connections."""


class Worker:
    """The lifecycle of one worker process."""

    def __init__(self, service: bentoml.Service[Any], requests: Requests) -> None:
        self._service = service
        self._requests = requests

    async def start(self) -> None:
        """Starts watching for models."""
        self._confine()
        self._requests.start(is_first=server_context.worker_index == 1)
        replacing = end_gracefully(router.end, settings.drain_seconds, settings.shutdown_seconds)
        router.start(replacing)
        await router.wait_loaded(LOAD_SECONDS)
        if server_context.worker_index == 1:  # one greeting is enough
            self._greeting = asyncio.create_task(self._greet())

    def _confine(self) -> None:
        """Drops privileges that models do not need, before one is loaded."""
        run_directory = Path(RUN_DIRECTORY or ".")
        remove_unix_sockets(run_directory)
        if not IS_CONFINED:
            return
        is_first = server_context.worker_index == 1
        for path in settings.readable_files:
            if is_first and not path.exists():
                log.warning("SERVING_READABLE_PATHS: %s does not exist", path)
        try:
            # The folder above the store: the store itself may be deleted and created again.
            readable = [model_store().parent, *settings.readable_files, *certificate_files(os.environ)]
            confine(readable, run_directory)
        except OSError as error:
            if is_first:
                log.warning(
                    "no sandbox: workers can read every file that this user can; the kernel has no Landlock, or "
                    "denies it (%s)",
                    error.strerror,
                )

    async def _greet(self) -> None:
        """Prints the URL once the first model is loaded."""
        await router.loaded.wait()
        if settings.log_format == "json":
            log.info("%s answers", router.model.tag)
            return
        url = self._service.url or "http://localhost:3000"
        print(greeting(router.model, url, is_published=settings.publish_examples), flush=True)

    async def stop(self) -> None:
        """Stops watching."""
        await router.stop()
        await self._requests.stop()


router = Router(Path(RUN_DIRECTORY or "."), settings)


@bentoml.service(
    name="model_server",
    service_class=GatewayService,
    workers=settings.workers,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class ModelServer:
    """Serves the Production model of an MLflow registry."""

    @bentoml.on_deployment
    def start_syncing() -> None:  # BentoML calls it once, on the class, in the parent
        """Starts the sync process; the workers find its outcome through the environment."""
        address = wanted_address()
        trouble = why_not_listen(*address) if address else None
        if trouble is not None:
            sys.exit(f"error: {trouble}")
        try:
            folder = new_run_directory()
        except OSError as error:
            sys.exit(f"error: cannot create a folder for temporary files (TMPDIR): {error}")
        os.environ[RUN_DIRECTORY_VARIABLE] = str(folder)
        use_unix_sockets(folder)
        replace_ended_workers(without_secrets if IS_CONFINED else dict)
        watch_over_workers(folder, settings.request_timeout_seconds + GRACE_SECONDS)
        for name, near in unknown_variables().items():
            hint = f"; did you mean {near}?" if near else ""
            log.warning("unknown setting %s%s", name, hint)
        for option, instead in find_ignored_options().items():
            log.warning("BentoML's option %s has no effect here%s", option, f"; {instead}" if instead else "")
        sealed = find_sealed(Path(__file__).parent)
        name = settings.model_name
        if sealed is not None:
            store, tag = sealed
            os.environ[STORE_VARIABLE] = str(store)
            manifest = open_prepared(tag).manifest
            name = manifest.name
        if settings.feedback_store is not None:
            from serving.monitoring.feedback.start import start_feedback

            # Before the log, so that it ends after it, and gets the log's last rows.
            start_feedback(folder, name, settings, without_secrets(dict(os.environ)))
        if settings.log_predictions is not None:
            from serving.monitoring.prediction_log.start import start_prediction_log

            environment = without_secrets(dict(os.environ))
            start_prediction_log(folder, settings.log_predictions, settings, environment)
        if sealed is None:
            with contextlib.suppress(OSError):  # the sync process reports the reason
                model_store().mkdir(parents=True, exist_ok=True)  # workers cannot read folders created later
            # Its metrics are shown by the workers.
            shown = {"PROMETHEUS_MULTIPROC_DIR": str(folder / "metrics")}
            Companion("serving.prepare.sync", str(folder), environment=os.environ | shown)
            return
        from serving.prepare.checks.trust import check_code

        try:  # the image may have been built with other settings
            check_code(manifest.writers_code, settings)
        except ModelRefused as error:
            sys.exit(f"error: {tag} is refused: {error}")
        write_state(folder, State(champion=tag))

    @bentoml.api
    async def predict(self, instances: list[Any], params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Predictions for rows."""
        body = msgspec.json.encode({"instances": instances, "params": params}, enc_hook=encode_hook)
        answered = await answer(v1.PREDICT, router, _request(body))
        return dict(msgspec.json.decode(answered.body))

    @bentoml.api
    async def predict_batch(self, rows: np.ndarray, /) -> np.ndarray:
        """The array of probabilities (or values) for an array of rows."""
        body = msgspec.json.encode(rows, enc_hook=encode_hook)
        answered = await answer(v1.PREDICT_BATCH, router, _request(body))
        return np.array(msgspec.json.decode(answered.body))
