"""A double of a Prometheus that has scraped two sides, up to the moment at which it is asked.

For tests of what follows from its answers, which would wait most of their time for a real one's next scrape.
"""

import contextlib
import http.server
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Self

from tests.rollout.traffic import Side

LABEL = re.compile(r'(\w+)="([^"]*)"')


class PretendedPrometheus(http.server.ThreadingHTTPServer):
    """Answers the queries that a canary asks."""

    daemon_threads = True

    def __init__(self, sides: Mapping[str, Side]) -> None:
        """Takes the sides, by a part of the matchers that only theirs have."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.is_dead = False
        self._sides = sides
        self._scraped: dict[str, dict[str, list[tuple[float, str]]]] = {part: {} for part in sides}

    def query(self, text: str) -> list[dict[str, Any]]:
        now = time.time()
        if text == "vector(time())":
            return [{"metric": {}, "value": [now, str(now)]}]
        (part,) = (part for part in self._sides if part in text)
        scraped = self._scraped[part]
        for line, value in self._sides[part].pod.lines.items():
            scraped.setdefault(line, []).append((now, str(value)))
        wanted = "model_info{" if text.startswith("model_info{") else ""
        found = []
        for line, samples in scraped.items():
            name = line.partition("{")[0]
            if line.startswith(wanted) and (wanted or name in text):
                labels = {"__name__": name, **dict(LABEL.findall(line))}
                found.append({"metric": labels, "values": list(samples)})
        return found

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: PretendedPrometheus

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def do_GET(self) -> None:
        if self.server.is_dead:
            self.close_connection = True
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
        answer = {"status": "success", "data": {"result": self.server.query(query)}}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
