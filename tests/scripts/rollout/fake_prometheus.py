"""A double of a Prometheus that has scraped two sides, up to the moment at which it is asked.

For tests of what follows from its answers, which would wait most of their time for a real one's next scrape.
"""

import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

from tests.scripts.rollout.clock import Clock
from tests.scripts.rollout.traffic import Side
from tests.support.doubles import Double, Quiet

LABEL = re.compile(r'(\w+)="([^"]*)"')


class FakePrometheus(Double):
    """Answers the queries that a canary asks."""

    def __init__(self, sides: Mapping[str, Side], clock: Clock) -> None:
        """Takes what it scrapes.

        Args:
            sides: by a part of the matchers that only theirs have.
            clock: of the samples.
        """
        super().__init__(_Handler)
        self._clock = clock
        self.is_dead = False
        self.has_lost_all = False
        self._sides = sides
        self._scraped: dict[str, dict[str, list[tuple[float, str]]]] = {part: {} for part in sides}

    def query(self, text: str) -> list[dict[str, Any]]:
        now = self._clock.time()
        if text == "vector(time())":
            return [{"metric": {}, "value": [now, str(now)]}]
        if text == "model_info":
            return [{"metric": {}, "value": [now, "1"]}] if not self.has_lost_all else []
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


class _Handler(Quiet):
    server: FakePrometheus

    def do_GET(self) -> None:
        if self.server.is_dead:
            self.close_connection = True
            return
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
        answer = {"status": "success", "data": {"result": self.server.query(query)}}
        self.answer(json.dumps(answer).encode())
