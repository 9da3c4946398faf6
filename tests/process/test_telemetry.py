"""Nothing of ours reports to anybody: the libraries' own telemetry is off before they are imported."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environment import ROOT
from tests.support.models import frame
from tests.support.services import running_service

SESSION = """
import onnxruntime
from onnx import TensorProto, helper
one, other = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [one], [other])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
onnxruntime.InferenceSession(model.SerializeToString())
"""


@pytest.mark.parametrize("first", ["serving", "service", "serving.prepare.__main__", "scripts.train"])
def test_onnxruntime_leaves_no_identifier_of_the_machine(first: str, tmp_path: Path):
    # It is silent in CI of its own accord, which is not what is tried here.
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    code = f"import {first}\n{SESSION}"
    env = kept | {"HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "bentoml"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, timeout=120, check=True)
    assert not list(tmp_path.rglob("*onnxruntime*"))


NAMESERVER = "127.53.53.53"
OFF = ("BENTOML_DO_NOT_TRACK", "MLFLOW_DISABLE_TELEMETRY", "ORT_DISABLE_TELEMETRY")


def name_in(query: bytes) -> str:
    """The name that a DNS query asks for. Source: RFC 1035, 4.1."""
    labels, at = [], 12
    while length := query[at]:
        labels.append(query[at + 1 : at + 1 + length].decode())
        at += 1 + length
    return ".".join(labels)


@pytest.fixture
def asked() -> Iterator[list[str]]:
    """The names that are asked of a name server that knows none."""
    names: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NAMESERVER, 53))

        def answer() -> None:
            while True:
                query, client = server.recvfrom(4096)
                if query == b"end":
                    return
                names.append(name_in(query))
                end = query.index(b"\0", 12) + 5
                server.sendto(query[:2] + b"\x81\x83" + query[4:6] + bytes(6) + query[12:end], client)

        thread = threading.Thread(target=answer)
        thread.start()
        yield names
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"end", (NAMESERVER, 53))
        thread.join()


@pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="only root may change the name server"
)
def test_no_process_looks_up_a_name_from_start_to_stop(
    asked: list[str], registry_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A look-up is what comes before a report, and takes 20 s where packets are dropped."""
    (tmp_path / "resolv.conf").write_text(f"nameserver {NAMESERVER}\n")
    watched = tmp_path / "python"
    watched.write_text(
        f'#!/bin/sh\nmount --bind {tmp_path}/resolv.conf /etc/resolv.conf\nexec {sys.executable} "$@"\n'
    )
    watched.chmod(0o755)
    for name in OFF:  # of `make`
        monkeypatch.delenv(name, raising=False)
    command = ["unshare", "--mount", str(watched)]
    look_up = "import socket; socket.getaddrinfo('watched.example', 80)"
    subprocess.run([*command, "-c", look_up], capture_output=True, check=False)
    assert set(asked) == {"watched.example"}, "name look-ups are not watched"
    asked.clear()
    with running_service(
        tmp_path,
        python=command,
        MLFLOW_TRACKING_URI=registry_uri,
        SERVING_MODEL_NAME="wine",
        SERVING_ALLOW_PICKLE="",
    ) as service:
        service.wait_ready()
        service.predict(frame("wine").iloc[:2].to_dict("records"))
        assert service.http.get("/schema.json").status_code == 200
    assert asked == []
