"""A real Prometheus for tests, and pods for it to scrape."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.environment import free_port, wait_until


class Prometheus:
    """A server that scrapes."""

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self.process = process
        self.url = url

    def value(self, query: str) -> float | None:
        """What a query that is one number gives; None where there are no samples."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).raise_for_status()
        found = answer.json()["data"]["result"]
        return float(found[0]["value"][1]) if found else None

    def wait_value(self, query: str, value: float | None, seconds: float = 30) -> None:
        """Waits until it has scraped something."""
        wait_until(lambda: self.value(query) == value, seconds, f"{query} is {value}")


@contextlib.contextmanager
def running_prometheus(
    folder: Path,
    *targets: str,
    labels: Mapping[str, Mapping[str, str]] | None = None,
    settings: dict[str, Any] | None = None,
    scrape_seconds: float = 1,
) -> Iterator[Prometheus]:
    """Runs Prometheus; where it is not installed the test is skipped, but fails in CI.

    It begins to scrape five seconds after its start.

    Args:
        folder: for its configuration and its samples.
        targets: `host:port` of what it scrapes.
        labels: by target, as a cluster's service discovery would set them; without, all have `env="prod"`.
        settings: a whole configuration, in which the targets are already.
        scrape_seconds: how often, and in which time a target has to answer.
    """
    binary = shutil.which("prometheus")
    if binary is None:
        missing = "needs prometheus: apt-get install prometheus"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    folder.mkdir(parents=True, exist_ok=True)
    known = labels or {}
    static = [{"targets": [target], "labels": {"env": "prod", **known.get(target, {})}} for target in targets]
    jobs = [{"job_name": "serving", "static_configs": static}]
    interval = f"{round(scrape_seconds * 1000)}ms"
    settings = settings or {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML, too
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'samples'}",
                f"--web.listen-address={address}",
            ],
            cwd=folder,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://{address}"

    def is_ready() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/-/ready").status_code == 200
        return False

    try:
        wait_until(is_ready, 60, "Prometheus is ready")
        yield Prometheus(process, url)
    finally:
        process.terminate()
        process.wait(30)


class _PodServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A scrape that was given up is no matter."""


class Pod:
    """Something that shows counters at `/metrics`, and can be stopped and started again."""

    def __init__(self, model: str = "wine") -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.model = model
        self.lines: dict[str, float] = {}
        self._server: ThreadingHTTPServer | None = None

    def show(self, version: str, *, answered: float, seconds: float = 0, failed: float | None = None) -> None:
        """Shows these numbers from now on; without `failed`, that counter is not there yet."""
        labels = f'model_name="{self.model}",model_version="{version}"'
        champion = f'{{{labels},role="champion"}}'
        lines = {
            f"model_info{{{labels}}}": 1,
            f"model_prediction_latency_seconds_count{champion}": answered,
            f"model_prediction_latency_seconds_sum{champion}": seconds,
            f'model_prediction_latency_seconds_count{{{labels},role="shadow"}}': 1000 + answered,
        }
        if failed is not None:
            lines[f'model_prediction_errors_total{{{labels},role="champion",error_type="internal"}}'] = failed
        self.show_lines(lines)

    def show_lines(self, lines: Mapping[str, float]) -> None:
        """Shows these time series, beside those that it has shown before."""
        self.lines = {**self.lines, **lines}  # at once: it may be scraped meanwhile

    def start(self) -> str:
        """Begins to answer; returns its address."""
        pod = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write("".join(f"{name} {value}\n" for name, value in pod.lines.items()).encode())

            def log_message(self, *_: Any) -> None:
                pass

        host, port = self.address.split(":")
        self._server = _PodServer((host, int(port)), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self.address

    def stop(self) -> None:
        """Its process ends, and its counters with it."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self.lines = {}
