"""A worker's end of the log: notes answered requests, and sends them to the writer from a thread."""

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from serving.codecs.limits import OBJECT_BYTES
from serving.model.prepared import Manifest
from serving.monitoring.finished import Finished
from serving.monitoring.prediction_log.encoding import MAX_ROWS, Encoder, Note, Part, split
from serving.monitoring.prediction_log.frames import pack
from serving.monitoring.prediction_log.metrics import ENCODING, QUEUE, dropped_rows_total
from serving.monitoring.prediction_log.options import socket_path
from serving.monitoring.prediction_log.selection import Selection
from serving.process.logs import BY_CALLERS, Sparing, origin
from serving.settings import Settings

log = logging.getLogger("serving.prediction_log")

_sparing = Sparing()

T = TypeVar("T")

SEND_SECONDS = 0.5
"""Time between two sendings: a killed worker loses this much, and the rows that it is encoding."""

PATIENCE_SECONDS = 5.0
"""Time that the writer may take to accept a message; also for the rest when the worker ends."""

MAX_WAITING_BYTES = 8_000_000
"""Approximate memory of the requests that wait; those that do not fit are dropped, unless nothing else waits."""

REQUEST_BYTES, COLUMN_BYTES, ROW_BYTES = 1_000, 250, 100
"""Approximate overhead of a request, of each of its columns, and of the answer to each row."""

NOTE_BYTES = 1_000
"""Approximate memory of a note, besides texts."""

MAX_ENCODERS = 16
"""Versions whose encoders are kept."""


class PredictionLog:
    """Logs the requests that this worker answers."""

    def __init__(self, run_directory: Path, settings: Settings) -> None:
        self._path = socket_path(run_directory)
        self._selection = Selection.of(settings)
        self._waiting: deque[tuple[Encoder, Finished | Note, int]] = deque()
        # Two counters, each written by one thread.
        self._n_added = self._n_taken = 0
        self._n_dropped = self._n_unencoded = 0
        self._encoders: dict[tuple[str, str, str], Encoder] = {}
        self._last: tuple[Manifest, Encoder] | tuple[None, None] = None, None
        """That of the last request, which is mostly that of the next: a look at three texts takes longer."""
        self._connection: socket.socket | None = None
        self._wake = threading.Event()
        self._is_closing = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)

    def start(self) -> None:
        """Starts the thread; after the sandbox, which would not apply to it."""
        self._thread.start()

    def observe(self, finished: Finished) -> None:
        """Notes an answered request."""
        if not self._selection.includes(finished.request_id):
            return
        manifest, encoder = self._last
        if encoder is None or finished.manifest is not manifest:
            encoder = self._encoder(finished.manifest)
            self._last = finished.manifest, encoder
        note = encoder.note(finished)
        n_bytes = estimate_bytes(finished) if note is None else NOTE_BYTES + finished.body_bytes
        n_waiting = self._n_added - self._n_taken
        if n_waiting and n_waiting + n_bytes > MAX_WAITING_BYTES:
            self._n_dropped += finished.inputs.n_rows
            return
        self._n_added += n_bytes
        self._waiting.append((encoder, finished if note is None else note, n_bytes))
        if n_waiting + n_bytes > MAX_WAITING_BYTES // 2:
            self._wake.set()

    def flush(self) -> None:
        """Writes what was counted where `/metrics` of every worker finds it."""
        n_dropped, self._n_dropped = self._n_dropped, 0
        if n_dropped:
            dropped_rows_total.labels(QUEUE).inc(n_dropped)
        n_unencoded, self._n_unencoded = self._n_unencoded, 0
        if n_unencoded:
            dropped_rows_total.labels(ENCODING).inc(n_unencoded)

    def close(self) -> None:
        """Sends the rest when the worker ends."""
        self._is_closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        frames: Iterator[bytes] = iter(())
        unsent: bytes | None = None
        while True:
            self._wake.wait(SEND_SECONDS)
            self._wake.clear()
            is_last = self._is_closing
            while True:
                if unsent is None:
                    unsent = next(frames, None)
                if unsent is None:
                    if not self._waiting:
                        break
                    frames = self._encode_waiting()
                elif self._send(unsent):
                    unsent = None
                else:
                    break
            if is_last:
                return

    def _encode_waiting(self) -> Iterator[bytes]:
        """Yields the messages for the requests that wait, until there are none."""
        notes: list[Note] = []
        parts: list[Part] = []
        n_rows = 0
        current: Encoder | None = None
        while self._waiting:
            encoder, request, n_bytes = self._waiting.popleft()
            for item in (request,) if isinstance(request, Note) else split(request):
                if current is not None and (n_rows >= MAX_ROWS or encoder is not current):
                    yield from self._encode(current, notes, parts)
                    notes, parts, n_rows = [], [], 0
                current = encoder
                if isinstance(item, Note):
                    notes.append(item)
                    n_rows += 1
                else:
                    parts.append(item)
                    n_rows += item.inputs.n_rows
            self._n_taken += n_bytes
        if current is not None:
            yield from self._encode(current, notes, parts)

    def _encode(self, encoder: Encoder, notes: list[Note], parts: list[Part]) -> Iterator[bytes]:
        """Yields the messages of requests to one model."""
        if notes:
            yield from self._try(encoder.encode_notes, notes, [1] * len(notes))
        if parts:
            yield from self._try(encoder.encode, parts, [part.inputs.n_rows for part in parts])

    def _try(self, encode: Callable[[list[T]], bytes], items: list[T], n_rows: list[int]) -> list[bytes]:
        """Returns the message of some requests; if one of them has no form in the log, that of the others."""
        try:
            return [pack(encode(items), sum(n_rows))]
        except Exception as error:  # it is logged: the service goes on
            if len(items) > 1:
                pairs = zip(items, n_rows, strict=True)
                return [frame for item, n in pairs for frame in self._try(encode, [item], [n])]
            self._n_unencoded += n_rows[0]
            ending = _sparing.admit(*origin(error))
            if ending is not None:
                log.exception("rows are not in the prediction log%s", ending, extra=BY_CALLERS)
            return []

    def _encoder(self, manifest: Manifest) -> Encoder:
        key = (manifest.name, manifest.version, manifest.digest)
        encoder = self._encoders.get(key)
        if encoder is None:
            if len(self._encoders) >= MAX_ENCODERS:
                self._encoders.clear()
            encoder = self._encoders[key] = Encoder(manifest, self._selection)
            if encoder.unknown_names:
                log.warning(
                    "%s version %s has no input %s, which SERVING_LOG_KEY, _EXCLUDE, _HASH or SERVING_QUALITY_SLICES names",
                    manifest.name,
                    manifest.version,
                    ", ".join(map(repr, encoder.unknown_names)),
                )
        return encoder

    def _send(self, frame: bytes) -> bool:
        """Sends a message; returns False if the writer cannot be reached, or is too slow."""
        try:
            if self._connection is None:
                connection = socket.socket(socket.AF_UNIX)
                connection.settimeout(PATIENCE_SECONDS)
                try:
                    connection.connect(str(self._path))
                except OSError:
                    connection.close()
                    raise
                self._connection = connection
            self._connection.sendall(frame)
        except OSError:
            # A part of the message may have been sent: the writer discards it when the connection ends.
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            return False
        return True


def estimate_bytes(finished: Finished) -> int:
    """Returns the approximate memory of a request that waits."""
    inputs = finished.inputs
    overhead = REQUEST_BYTES + COLUMN_BYTES * len(inputs.columns) + ROW_BYTES * inputs.n_rows
    if inputs.n_rows == 1:
        return overhead + finished.body_bytes
    n_bytes = sum(column.nbytes for column in inputs.columns)
    n_objects = sum(column.size for column in inputs.columns if column.dtype == object)
    return overhead + n_bytes + max(inputs.object_bytes, n_objects * OBJECT_BYTES, finished.body_bytes)
