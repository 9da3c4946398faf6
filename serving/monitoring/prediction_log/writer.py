"""Receives the workers' messages, and appends them to the journal."""

import contextlib
import datetime as dt
import logging
import os
import selectors
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from serving.monitoring.prediction_log import metrics
from serving.monitoring.prediction_log.frames import Damaged, Frame, take_frames
from serving.monitoring.prediction_log.journal import Journal, find_journals
from serving.monitoring.prediction_log.options import Options, Outcome
from serving.monitoring.reserved import find_space

log = logging.getLogger("serving.prediction_log")

SYNC_SECONDS = 1.0
"""Rows may be lost for so long after they are answered, if the machine crashes."""

RETRY_SECONDS = 2.0
"""Pause before the folder is tried again."""

MAX_HELD_BYTES = 8_000_000
"""Messages that wait for the folder; further ones are dropped."""

CLEAN_SECONDS = 3600.0
"""Time after which old files are deleted even if there are no new ones."""

FIRST_CLEAN_SECONDS = 60.0
"""The same after the start, when the service needs the processors."""

RETRY_CONVERSION_SECONDS = 60.0

RECEIVED_BYTES = 1 << 18


class Writer:
    """The log's folder and the journal in it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._folder = Path(options.folder)
        self._journal: Journal | None = None
        self._held: list[Frame] = []
        self._n_held_bytes = 0
        self._n_dropped = 0
        self._trouble = ""
        """Why nothing is written; empty if all is well."""
        self._conversion_trouble = ""
        self._retry_at = self._synced_at = 0.0
        self._converter: subprocess.Popen[bytes] | None = None
        self._converted_at = time.monotonic() - CLEAN_SECONDS + FIRST_CLEAN_SECONDS
        self._clock_offset = time.time() - time.monotonic()
        with contextlib.suppress(OSError):  # it is reported below
            self._folder.mkdir(parents=True, exist_ok=True)
        self._store()
        if len(find_journals(self._folder)) > (self._journal is not None):
            self._convert()  # what a crash has left behind

    def add(self, frames: list[Frame]) -> None:
        """Writes messages, or holds them until they can be written."""
        for frame in frames:
            if self._n_held_bytes + len(frame.whole) > MAX_HELD_BYTES and self._held:
                self._drop(frame.n_rows)
                continue
            self._held.append(frame)
            self._n_held_bytes += len(frame.whole)
        self._store()

    def _drop(self, n_rows: int) -> None:
        self._n_dropped += n_rows
        metrics.dropped_rows_total.labels(metrics.DISK).inc(n_rows)

    def _store(self) -> None:
        if self._trouble and time.monotonic() < self._retry_at:
            return
        try:
            if self._journal is None:
                self._journal = Journal(self._folder)
            if self._held:
                self._journal.append(b"".join([frame.whole for frame in self._held]))
        except OSError as error:
            self._fail(error)
            return
        metrics.rows_total.inc(sum(frame.n_rows for frame in self._held))
        self._held = []
        self._n_held_bytes = 0
        if self._trouble:
            log.info("the prediction log goes on in %s; %d rows are missing", self._folder, self._n_dropped)
            self._trouble, self._n_dropped = "", 0

    def _fail(self, error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        if reason != self._trouble:
            log.error(
                "the prediction log stops: %s: %s (retrying; up to %d MB of rows wait)",
                self._folder,
                reason,
                MAX_HELD_BYTES // 1_000_000,
            )
        self._trouble = reason
        self._retry_at = time.monotonic() + RETRY_SECONDS
        # A journal that was deleted takes rows that nobody could read.
        if self._journal is not None and not self._journal.path.exists():
            self._close_journal()

    def _close_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def tick(self) -> None:
        """Does what is due; called often."""
        now = time.monotonic()
        if now - self._synced_at < SYNC_SECONDS:
            return
        self._synced_at = now
        try:
            if self._journal is not None and not self._trouble:
                self._journal.sync()
        except OSError as error:
            self._fail(error)
        self._store()
        self._collect()
        journal = self._journal
        is_due = journal is not None and (
            journal.n_bytes >= self._options.file_bytes
            or (journal.n_bytes and now - journal.since >= self._options.file_seconds)
        )
        pause = RETRY_CONVERSION_SECONDS if self._conversion_trouble else CLEAN_SECONDS
        if self._converter is None and (is_due or now - self._converted_at >= pause):
            if is_due:
                self._close_journal()
                self._store()
            self._convert()
        metrics.failing.set(bool(self._trouble or self._conversion_trouble))
        find_space()

    def _convert(self) -> None:
        self._converted_at = time.monotonic()
        # A clock that is set forward by mistake must not make all files old.
        now = min(time.time(), self._clock_offset + time.monotonic())
        oldest = dt.datetime.fromtimestamp(max(now - self._options.keep_seconds, 0), dt.UTC).date()
        try:
            self._converter = subprocess.Popen(  # noqa: S603  # our own module
                [
                    *(sys.executable, "-m", "serving.monitoring.prediction_log.converter"),
                    *(msgspec.json.encode(self._options).decode(), oldest.isoformat()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
            )
        except OSError as error:  # no more processes, for the moment
            self._end_conversion(Outcome(trouble=f"cannot start a process: {error.strerror}"))

    def _collect(self, timeout: float = 0) -> None:
        """Reads the outcome of a conversion that has ended."""
        if self._converter is None:
            return
        try:
            self._converter.wait(timeout)  # its output is one line, for which a pipe has room
        except subprocess.TimeoutExpired:
            return
        output, _ = self._converter.communicate()
        self._converter = None
        try:
            outcome = msgspec.json.decode(output, type=Outcome)
        except msgspec.MsgspecError:
            outcome = Outcome(trouble="the converting process was killed")
        self._end_conversion(outcome)

    def _end_conversion(self, outcome: Outcome) -> None:
        if outcome.n_damaged:
            log.warning("%d damaged messages are not in the prediction log", outcome.n_damaged)
        if outcome.trouble and outcome.trouble != self._conversion_trouble:
            log.error(
                "no Parquet files of the prediction log: %s: %s (retrying; the journals keep the rows)",
                self._folder,
                outcome.trouble,
            )
        elif self._conversion_trouble and not outcome.trouble:
            log.info("the prediction log has Parquet files again")
        self._conversion_trouble = outcome.trouble
        metrics.size_bytes.set(outcome.n_bytes)

    def close(self, seconds: float) -> None:
        """Converts the rest; what takes longer than some seconds is left to the next start."""
        deadline = time.monotonic() + seconds
        self._collect(seconds)
        self._store()
        self._close_journal()
        if self._converter is None:
            self._convert()
            self._collect(max(0, deadline - time.monotonic()))


LINGER_SECONDS = 120.0
"""Time that the workers may take to end after their parent."""

CLOSE_SECONDS = 8.0
"""Time for the last conversion."""


def receive(listener: socket.socket, writer: Writer, parent: int) -> None:
    """Runs until the parent and all workers have ended.

    Args:
        listener: the socket that workers connect to.
        writer: gets their messages.
        parent: a file that ends with the parent process.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(parent, selectors.EVENT_READ)
        buffers: dict[socket.socket, bytearray] = {}
        ends_at: float | None = None
        while True:
            ready = selector.select(SYNC_SECONDS / 2)
            if ends_at is not None and (not (ready or buffers) or time.monotonic() > ends_at):
                return
            for key, _ in ready:
                if key.fileobj is listener:
                    connection, _ = listener.accept()
                    selector.register(connection, selectors.EVENT_READ)
                    buffers[connection] = bytearray()
                elif key.fileobj == parent:
                    if not os.read(parent, 1024):
                        selector.unregister(parent)
                        ends_at = time.monotonic() + LINGER_SECONDS
                elif isinstance(key.fileobj, socket.socket) and not _read(
                    key.fileobj, buffers[key.fileobj], writer
                ):
                    selector.unregister(key.fileobj)
                    del buffers[key.fileobj]
                    key.fileobj.close()
            writer.tick()


def _read(connection: socket.socket, buffer: bytearray, writer: Writer) -> bool:
    """Takes what a worker has sent; returns False at its end."""
    try:
        received = connection.recv(RECEIVED_BYTES)
        if not received:
            return False
        buffer += received
        writer.add(take_frames(buffer))
    except (OSError, Damaged):
        return False
    return True
