"""What the tests of promotions share: versions that differ in every answer, and clients that check each one."""

import base64
import contextlib
import ctypes
import hashlib
import hmac
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.datasets import load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from serving.process.child import PARENT_VARIABLE
from tests.support.beside import Beside
from tests.support.environment import clean_environment, tracking, wait_until
from tests.support.models import REQUIREMENTS, copy_registry, fill_registry, frame, register
from tests.support.prepared import prepare_all
from tests.support.services import Service, running_service
from tests.support.shared import once
from tests.support.soak import IS_SOAK

NAME = "wine"
ROWS = frame("wine").iloc[::40].to_dict("records")
"""Of every class."""


def log_wine(model: Any, X: pd.DataFrame, name: str, **more: Any) -> Any:
    """Logs and registers a classifier of wines."""
    return mlflow.sklearn.log_model(
        model,
        name=name,
        registered_model_name=name,
        **REQUIREMENTS,
        signature=infer_signature(X, np.zeros(3, dtype=np.int64)),
        **more,
    )


def version_of_strength(strength: float) -> Any:
    """Returns what logs a regression whose probabilities depend on its strength."""

    def log(name: str) -> Any:
        X, y = load_wine(return_X_y=True, as_frame=True)
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000)).fit(X, y)
        return log_wine(model, X, name, input_example=X.head(3))

    return log


def version_of_neighbours(n_neighbors: int, *, is_scaled: bool) -> Any:
    """Returns what logs a classifier without a compiled form, behind a step that has one or alone."""

    def log(name: str) -> Any:
        X, y = load_wine(return_X_y=True, as_frame=True)
        neighbours = KNeighborsClassifier(n_neighbors, algorithm="brute")
        model = make_pipeline(StandardScaler(), neighbours) if is_scaled else neighbours
        return log_wine(model.fit(X, y), X, name, input_example=X.head(3))

    return log


def _register_strengths(folder: Path, strengths: tuple[float, ...]) -> str:
    uri = fill_registry(folder, {})
    with tracking(uri):
        for strength in strengths:
            register(NAME, version_of_strength(strength), alias=None)
    return uri


class Registry:
    """A registry of a test's own with versions of `wine`, and what each of them answers."""

    def __init__(self, folder: Path, *strengths: float, owns_artifacts: bool = False) -> None:
        """Copies the run's registry with these versions.

        Args:
            folder: for the registry.
            strengths: of its versions.
            owns_artifacts: whether the artifacts are this registry's alone, too, so that they may be changed; else
                they are prepared already.
        """
        if owns_artifacts:
            folder.mkdir(parents=True, exist_ok=True)
            self.uri = _register_strengths(folder, strengths)
            self.artifacts = folder / "artifacts"
        else:
            made = once(f"wine-{strengths}", lambda made: prepare_all(_register_strengths(made, strengths)))
            self.uri = copy_registry(made, folder)
            self.artifacts = made / "artifacts"
        self.answers: dict[str, list[list[float]]] = {}
        self.promote("1")

    @property
    def client(self) -> mlflow.MlflowClient:
        """MLflow's own client of it."""
        return mlflow.MlflowClient(self.uri, self.uri)

    @property
    def aliases(self) -> dict[str, str]:
        """The versions that aliases point at, other than those of semantic versions."""
        found = self.client.get_registered_model(NAME).aliases
        return {alias: str(version) for alias, version in found.items() if not re.match(r"v\d+-", alias)}

    @property
    def stages(self) -> dict[str, str]:
        """The legacy stages of the versions."""
        found = self.client.search_model_versions(f"name = '{NAME}'")
        return {str(version.version): version.current_stage for version in found}

    def promote(self, version: str) -> None:
        """Lets the alias point at a version."""
        self.client.set_registered_model_alias(NAME, "production", version)

    def transition(self, version: str, stage: str) -> None:
        """Brings a version to a legacy stage, as people do by hand: what is in the stage stays there."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that stages are deprecated
            self.client.transition_model_version_stage(NAME, version, stage)

    def add(self, log: Any) -> str:
        """Registers one more version; returns its number."""
        with tracking(self.uri):
            return register(NAME, log, alias=None)

    def add_again(self, version: str) -> str:
        """Registers one more version of the files of another; returns its number."""
        client = mlflow.MlflowClient(self.uri, self.uri)
        source = client.get_model_version(NAME, version)
        with tracking(self.uri):
            added = str(client.create_model_version(NAME, source.source, source.run_id).version)
        self.answers[added] = self.own_answers(version)
        return added

    def artifact(self, version: str, name: str) -> Path:
        """Returns a file of a version in the artifact store, which others may use, too, unless it was added here."""
        found = mlflow.MlflowClient(self.uri, self.uri).get_model_version(NAME, version)
        (file,) = (self.artifacts / "models" / found.source.rpartition("/")[2]).rglob(name)
        return Path(file)

    def own_answers(self, version: str) -> list[list[float]]:
        """What the model itself says of `ROWS`."""
        if version not in self.answers:
            with tracking(self.uri):
                model = mlflow.sklearn.load_model(f"models:/{NAME}/{version}")
            self.answers[version] = model.predict_proba(pd.DataFrame(ROWS)).tolist()
        return self.answers[version]


@contextlib.contextmanager
def two_workers(
    folder: Path, registry: Registry, *, is_cold: bool = False, **environment: str
) -> Iterator[Service]:
    """Runs a service of two workers that follows the registry five times a second."""
    with running_service(
        folder,
        is_cold=is_cold,
        **{
            "MLFLOW_TRACKING_URI": registry.uri,
            "SERVING_MODEL_NAME": NAME,
            "SERVING_WORKERS": "2",
            "SERVING_SYNC_SECONDS": "0.2",
        }
        | environment,
    ) as service:
        yield service.wait_ready()


@contextlib.contextmanager
def tracking_server(
    uri: str, port: int, *options: str, health: str = "/health", **environment: str
) -> Iterator[None]:
    """A real `mlflow server` of the registry at the URI, which answers `health` once it is there."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)),
            *("--workers", "1", "--backend-store-uri", uri, *options),
        ],
        env=clean_environment() | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"http://127.0.0.1:{port}{health}").status_code == 200
        return False

    try:
        wait_until(answers, 90, "the tracking server answers")
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def signed(secret: str, body: bytes) -> dict[str, str]:
    """The headers of MLflow's webhook. Source: mlflow/webhooks/delivery.py."""
    now = str(int(time.time()))
    digest = hmac.new(secret.encode(), f"id-1.{now}.".encode() + body, hashlib.sha256).digest()
    return {
        "X-MLflow-Signature": "v1," + base64.b64encode(digest).decode(),
        "X-MLflow-Timestamp": now,
        "X-MLflow-Delivery-Id": "id-1",
    }


PAUSE_SECONDS = 0 if IS_SOAK else 0.02
"""Between two requests of a client: under load, but not such that preparing beside it takes minutes."""


class Clients(Beside):
    """Clients that fire from the beginning to the end of a `with` statement."""

    def __init__(
        self,
        service: Service,
        registry: Registry,
        versions: tuple[str, ...],
        n: int = 4,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """Takes what is fired, and at whom.

        Args:
            service: answers.
            registry: has the versions.
            versions: that may answer.
            n: how many clients.
            pause_seconds: of each after an answer; at 0 they take every processor that there is.
        """
        self.answered: Counter[str] = Counter()
        """Answers by version."""
        self.wrong: list[str] = []
        self._service = service
        self._expected = {version: registry.own_answers(version) for version in versions}
        self._pause_seconds = pause_seconds
        super().__init__(*[self._fire] * n)

    def _fire(self) -> None:
        connection = self._connect()
        body = json.dumps({"instances": ROWS})
        while not self.over.is_set():
            try:
                connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
                self._check(response.status, answer)
            except Exception as error:  # every failure counts, whatever it is
                self.wrong.append(repr(error))
                connection.close()
                connection = self._connect()
            self.over.wait(self._pause_seconds)
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._service.url.removeprefix("http://"), timeout=30)

    def _check(self, status: int, answer: dict[str, Any]) -> None:
        if status != 200:
            self.wrong.append(f"{status}: {answer}")
            return
        version = answer["model"]["version"]
        self.answered[version] += 1
        got = [list(one["probabilities"].values()) for one in answer["predictions"]]
        if version not in self._expected or not np.allclose(got, self._expected[version], rtol=0, atol=1e-9):
            self.wrong.append(f"version {version} answered {got}")


def versions_answering(service: Service, n_requests: int = 12) -> set[str]:
    """The versions that answer new connections, which the kernel hands to the workers in turn or at random."""
    found = set()
    for _ in range(n_requests):
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"), timeout=30)
        connection.request(
            "POST", "/v1/predict", json.dumps({"instances": ROWS[:1]}), {"Content-Type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read())
        found.add(answer.get("model", {}).get("version", str(answer)))
        connection.close()
    return found


def wait_answering(service: Service, version: str, seconds: float = 180) -> None:
    """Waits until every worker answers with the version.

    Each says so itself: of the connections made under load one worker may get nearly all. Preparing has a low
    priority: beside clients that take what they can get it may last minutes.
    """
    wait_until(
        lambda: (
            service.every_worker_serves(f"{NAME}:{version}-") and versions_answering(service) == {version}
        ),
        seconds,
        f"version {version} answers everywhere",
    )


def described_everywhere(service: Service, n_requests: int = 40) -> list[dict[str, Any]]:
    """What `/v1/models` says at as many new connections; an idle service's workers get about half of them each."""
    return [service.ask_anew("GET", "/v1/models").json() for _ in range(n_requests)]


def refused(service: Service) -> dict[str, str]:
    """The reasons of refused versions, as `/v1/models` has them."""
    return {one["version"]: one["reason"] for one in service.http.get("/v1/models").json()["refused"]}


def metrics(service: Service) -> str:
    """What one of the workers shows at `/metrics`."""
    return service.http.get("/metrics").text


class Trap(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """A step that does its worst, once it is in the processes of a service."""

    def __init__(self, kind: str = "none") -> None:
        self.kind = kind

    def fit(self, X: Any, y: Any = None) -> "Trap":
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        if "SERVING_MODEL_NAME" in os.environ:
            if self.kind == "slow":
                time.sleep(0.2)
            is_prepared = PARENT_VARIABLE in os.environ
            if self.kind == "sluggish" and not is_prepared:
                time.sleep(0.2)
            if (self.kind == "hang" and not is_prepared) or (self.kind == "stuck" and is_prepared):
                time.sleep(3600)
            if self.kind == "tardy":
                time.sleep(0.005)
            if self.kind == "patient" and not is_prepared:
                self._wait(X)
            if self.kind == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.kind == "greedy":
                hoard = []
                while True:
                    hoard.append(bytearray(2**30))
        return X

    @staticmethod
    def _wait(X: pd.DataFrame) -> None:
        """Takes as many seconds as the rows say: below zero in `alcohol`; in `malic_acid`, nothing else runs meanwhile."""
        time.sleep(max(0.0, -X["alcohol"].min()))
        if (X["malic_acid"] < 0).any():
            # Unlike `CDLL`, it holds the interpreter's lock.
            ctypes.PyDLL(None).sleep(int(-X["malic_acid"].min()))


def trapped(kind: str, serialization_format: str = "cloudpickle") -> Any:
    """Returns what logs a model with a trap in it."""

    def log(name: str) -> Any:
        X, y = load_wine(return_X_y=True, as_frame=True)
        model = make_pipeline(Trap(kind), StandardScaler(), LogisticRegression()).fit(X, y)
        return log_wine(
            model,
            X,
            name,
            serialization_format=serialization_format,
            skops_trusted_types=["tests.support.promotions.Trap"],
        )

    return log


def nan_outputs(name: str) -> Any:
    """Logs a model whose training diverged."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    model[-1].coef_[:] = np.nan
    return log_wine(model, X, name)


def another_signature(name: str) -> Any:
    """Logs a model that wants one column more."""
    X, y = load_wine(return_X_y=True, as_frame=True)
    X = X.assign(region=1.0)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    return log_wine(model, X, name)
