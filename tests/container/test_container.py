"""Both kinds of image, built as users build them and run as hardened as they will be. `make test-container`."""

import contextlib
import http.client
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.container.strangers import Strangers
from tests.kubernetes.building import build, of_kind
from tests.support.environment import ROOT, clean_environment, free_port, tracking, wait_until
from tests.support.promotions import NAME, ROWS, Clients, Registry, tracking_server

LIVE, SEALED = "model-server-test:live", "model-server-test:sealed"

HARDENED = (
    *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--pids-limit", "200"),
    *("--tmpfs", "/tmp", "--tmpfs", "/var/lib/model-server:uid=1034,gid=1034,mode=700"),  # in the container
)


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def _engine() -> None:
    done = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.exit(f"NO CONTAINER ENGINE ANSWERS, so nothing of the images was tried:\n{done.stderr}", 1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Two versions."""
    return Registry(tmp_path_factory.mktemp("versions"), 1.0, 0.01)


@pytest.fixture(scope="module")
def images(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Both images; their sizes in bytes."""
    environment = clean_environment() | {
        "MLFLOW_TRACKING_URI": registry.uri,
        "SERVING_MODEL_NAME": NAME,
        "BENTOML_HOME": str(tmp_path_factory.mktemp("home")),
    }
    sizes = {}
    for tag, options in ((LIVE, []), (SEALED, ["--model-version", "1"])):
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "scripts/build_image.py", "--tag", tag, *options],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        sizes[tag] = int(docker("image", "inspect", "-f", "{{.Size}}", tag))
        print(f"{tag}: {sizes[tag] / 1e6:.0f} MB, built in {time.monotonic() - began:.0f} s")
    return sizes


class Container:
    """A running container on the host's network."""

    def __init__(self, name: str, port: int) -> None:
        self.name = name
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.Client(base_url=self.url, timeout=60)

    @property
    def log(self) -> str:
        return docker("logs", self.name)

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/readyz").status_code == 200
        return False

    def versions_answering(self) -> set[str]:
        found = set()
        for _ in range(8):
            with httpx.Client(base_url=self.url, timeout=60) as client:
                found.add(client.post("/v1/predict", json={"instances": ROWS[:1]}).json()["model"]["version"])
        return found


@contextlib.contextmanager
def running(image: str, *options: str, **environment: str) -> Iterator[Container]:
    port = free_port()
    name = f"model-server-test-{port}"
    variables = [f"--env={key}={value}" for key, value in (environment | {"BENTOML_PORT": str(port)}).items()]
    docker("run", "--detach", "--name", name, "--network", "host", *HARDENED, *options, *variables, image)
    container = Container(name, port)
    try:
        yield container
    except BaseException:
        print(container.log)
        raise
    finally:
        container.http.close()
        docker("rm", "--force", name)


def own_probabilities(registry: Registry, version: str, rows: pd.DataFrame) -> Any:
    with tracking(registry.uri):
        return mlflow.sklearn.load_model(f"models:/{NAME}/{version}").predict_proba(rows)


def test_the_images_are_small(images: dict[str, int]) -> None:
    assert images[LIVE] <= 600e6
    assert images[SEALED] <= 300e6


@pytest.mark.parametrize("image", [LIVE, SEALED])
def test_nothing_is_inside_that_installs_compiles_or_tells(images: dict[str, int], image: str) -> None:
    look = (
        "for name in gcc cc g++ make git pip pip3 apt apt-get dpkg perl curl; do command -v $name; done; "
        "find / -xdev \\( -name .env -o -name '*.pyc' -path '*/tests/*' -o -name conftest.py \\) 2>/dev/null; "
        "find / -xdev -perm /6000 -type f 2>/dev/null; "
        "ls -d /root/.cache /root/.local/share/pip 2>/dev/null; true"
    )
    assert docker("run", "--rm", "--entrypoint", "sh", image, "-c", look).split() == []


def test_a_sealed_image_has_no_library_that_trains(images: dict[str, int]) -> None:
    look = "import importlib.util as u; print([n for n in ('mlflow', 'sklearn', 'pandas', 'scipy', 'skops') if u.find_spec(n)])"
    assert docker("run", "--rm", "--entrypoint", "python", SEALED, "-c", look) == "[]"
    found = docker("run", "--rm", "--entrypoint", "find", SEALED, "/home/bentoml", "-name", "mlflow")
    assert found == "", "the original model is inside"


@pytest.mark.parametrize("image", [LIVE, SEALED])
def test_the_image_says_what_it_is(images: dict[str, int], image: str, registry: Registry) -> None:
    labels = json.loads(docker("image", "inspect", "-f", "{{json .Config.Labels}}", image))
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert head.stdout.startswith(labels["org.opencontainers.image.revision"])
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == image.rpartition(":")[2]
    model = {key: labels.get(f"mlflow.model.{key}") for key in ("name", "version")}
    assert model == ({"name": NAME, "version": "1"} if image == SEALED else {"name": None, "version": None})
    assert docker("image", "inspect", "-f", "{{.Config.User}}", image) == "1034:1034"
    variables = json.loads(docker("image", "inspect", "-f", "{{json .Config.Env}}", image))
    assert "BENTOML_DO_NOT_TRACK=True" in variables, "BentoML reports what it is used for"


def test_a_sealed_image_serves_without_any_network(images: dict[str, int]) -> None:
    name = f"model-server-test-{os.getpid()}"
    ask = (
        "import http.client as h; c = h.HTTPConnection('127.0.0.1', 3000); c.request('GET', '/readyz'); "
        "raise SystemExit(c.getresponse().status != 200)"
    )

    def is_ready() -> bool:
        done = subprocess.run(["docker", "exec", name, "python", "-c", ask], capture_output=True, check=False)
        return done.returncode == 0

    docker("run", "--detach", "--name", name, "--network", "none", *HARDENED, SEALED)
    try:
        wait_until(is_ready, 60, "it is ready")
        health = lambda: docker("inspect", "-f", "{{.State.Health.Status}}", name)  # noqa: E731
        wait_until(lambda: health() == "healthy", 60, "the engine finds it healthy")
    finally:
        docker("rm", "--force", name)


def test_a_sealed_image_gives_the_models_own_numbers(images: dict[str, int], registry: Registry) -> None:
    rows = pd.DataFrame(ROWS)
    expected = own_probabilities(registry, "1", rows)
    began = time.monotonic()
    with running(SEALED) as container:
        wait_until(container.is_ready, 60, "it is ready")
        print(f"sealed: ready {time.monotonic() - began:.1f} s after docker run")
        answer = container.http.post("/v1/predict", json={"instances": ROWS}).json()
        got = [list(one["probabilities"].values()) for one in answer["predictions"]]
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
        stream = io.BytesIO()
        np.save(stream, rows.to_numpy())
        npy = container.http.post(
            "/v1/predict_batch", content=stream.getvalue(), headers={"Content-Type": "application/x-npy"}
        )
        np.testing.assert_allclose(np.load(io.BytesIO(npy.content)), expected, rtol=0, atol=1e-9)
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        table = pa.Table.from_pandas(rows, preserve_index=False)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        arrow = container.http.post(
            "/v1/predict_batch",
            content=sink.getvalue().to_pybytes(),
            headers={"Content-Type": "application/vnd.apache.arrow.stream"},
        )
        got = pa.ipc.open_stream(arrow.content).read_all().to_pandas().to_numpy()
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-9)
        for line in container.log.splitlines():
            json.loads(line)
        assert "Landlock" not in container.log, "workers may read every file"


def test_a_live_image_follows_a_promotion_and_ends_without_a_lost_request(
    images: dict[str, int], registry: Registry
) -> None:
    registry.promote("1")
    port = free_port()
    settings = {
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}",
        "SERVING_MODEL_NAME": NAME,
        "SERVING_SYNC_SECONDS": "1",
        "SERVING_DRAIN_SECONDS": "3",
    }
    # The registry's artifacts are files; the container finds them under the same path.
    volume = f"--volume={registry.artifacts}:{registry.artifacts}:ro"
    with tracking_server(registry.uri, port), running(LIVE, volume, **settings) as container:
        began = time.monotonic()
        wait_until(container.is_ready, 180, "it is ready")
        print(f"live: ready {time.monotonic() - began:.1f} s after docker run (pull, gate, compile)")
        with Clients(container, registry, ("1", "2"), n=2) as clients:  # type: ignore[arg-type]  # as far as they look
            promote_from_the_image(container, settings["MLFLOW_TRACKING_URI"], volume)
            assert container.versions_answering() == {"2"}
        assert clients.wrong == []
        assert set(clients.answered) == {"1", "2"}
        lost, answered = stop_under_load(container)
        assert lost == []
        assert answered > 20
        for line in container.log.splitlines():
            json.loads(line)
        assert "Landlock" not in container.log, "workers may read every file"


def promote_from_the_image(container: Container, registry: str, *options: str) -> None:
    """As the Job of k8s/components/scripts does it, in its memory."""
    (cronjob,) = of_kind(build("production", "scripts"), "CronJob")
    (job,) = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    memory = job["resources"]["limits"]["memory"].removesuffix("i")
    script = job["args"][0].replace("history", "promote")
    variables = {
        "HOME": "/tmp",
        "MLFLOW_TRACKING_URI": registry,
        "SERVING_MODEL_NAME": NAME,
    }  # in the container
    said = docker(
        *(
            "run",
            "--rm",
            "--network",
            "host",
            *HARDENED,
            *options,
            "--memory",
            memory,
            "--memory-swap",
            memory,
        ),
        *(f"--env={name}={value}" for name, value in variables.items()),
        *("--workdir", job["workingDir"], "--entrypoint", *job["command"], LIVE, script),
        *("2", "--url", container.url, "--why", "a trial"),
    )
    assert f"{NAME}@production went from version 1 to 2" in said
    assert f"{container.url} answers with version 2" in said


def test_a_container_of_1_gib_outlives_whatever_it_is_sent(
    images: dict[str, int], registry: Registry
) -> None:
    """Without a limit on what all requests take together, the kernel kills its workers within seconds."""
    registry.promote("1")
    port = free_port()
    settings = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}", "SERVING_MODEL_NAME": NAME}
    options = (
        f"--volume={registry.artifacts}:{registry.artifacts}:ro",
        *("--memory", "1g", "--memory-swap", "1g"),
    )
    with tracking_server(registry.uri, port), running(LIVE, *options, **settings) as container:
        wait_until(container.is_ready, 180, "it is ready")
        limit = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true"
        assert docker("exec", container.name, "sh", "-c", limit) == str(2**30), "the engine limits its memory"
        processes = docker("top", container.name, "-eo", "pid")
        with Strangers(container.url, ROWS[0], n_each=4) as strangers:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                assert container.http.get("/livez").status_code == 200
                time.sleep(0.1)
        print(f"1 GiB: {dict(strangers.outcomes)}")
        assert docker("top", container.name, "-eo", "pid") == processes, "none was started again"
        answers = {outcome for _, outcome in strangers.outcomes if isinstance(outcome, tuple)}
        refused = {
            (413, "payload_too_large"),
            (422, "invalid_input"),
            (503, "queue_full"),
            (504, "timed_out"),
        }
        assert answers <= {(200, ""), *refused}
        assert (503, "queue_full") in answers
        wait_until(container.is_ready, 30, "it is ready")
        assert container.http.post("/v1/predict", json={"instances": ROWS}).status_code == 200


def stop_under_load(container: Container) -> tuple[list[str], int]:
    """Stops it while clients fire that go where they are sent; returns what was lost, and how many were answered."""
    lost: list[str] = []
    answered: list[int] = []

    def fire() -> None:
        connection = http.client.HTTPConnection(container.url.removeprefix("http://"), timeout=30)
        body = json.dumps({"instances": ROWS[:1]})
        with contextlib.closing(connection):
            try:
                while True:
                    connection.request("POST", "/v1/predict", body, {"Content-Type": "application/json"})
                    response = connection.getresponse()
                    response.read()
                    answered.append(response.status)
                    if response.getheader("Connection") == "close":
                        return
            except (OSError, http.client.HTTPException) as error:
                lost.append(repr(error))

    threads = [threading.Thread(target=fire) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    began = time.monotonic()
    docker("stop", "--time", "30", container.name)
    print(f"stopped under load within {time.monotonic() - began:.1f} s")
    for thread in threads:
        thread.join(30)
    lost += [str(status) for status in answered if status != 200]
    assert re.fullmatch("0|143", docker("inspect", "-f", "{{.State.ExitCode}}", container.name))
    return lost, len(answered)
