"""Follows the prediction log: its journals as they grow, and the Parquet files that they become."""

import logging
from collections.abc import Iterator, Sequence
from io import BufferedReader
from pathlib import Path

import msgspec

from serving.monitoring.feedback.answers import Answer, answers_of
from serving.monitoring.prediction_log.frames import Damaged, take_frames
from serving.monitoring.prediction_log.journal import find_journals
from serving.monitoring.prediction_log.rows import Rows

log = logging.getLogger("serving.feedback")

READ_BYTES = 1 << 20


class Journals:
    """Reads each journal once, in parts as they come."""

    def __init__(self, folder: Path, slices: Sequence[str]) -> None:
        """Takes the log's folder, and the inputs by whose values quality is told apart."""
        self._folder, self._slices = folder, slices
        self._open: dict[str, tuple[BufferedReader, bytearray]] = {}
        self._decoder = msgspec.msgpack.Decoder(Rows)
        self.read_whole: set[str] = set()
        """Names, without suffix, of journals that were read to their end."""

    def read(self) -> Iterator[list[Answer]]:
        """Yields the answers that were added since the last call.

        Raises:
            OSError: a journal cannot be read.
        """
        for path in find_journals(self._folder):
            if path.stem not in self._open and path.stem not in self.read_whole:
                try:
                    self._open[path.stem] = path.open("rb"), bytearray()
                except FileNotFoundError:  # it has become a Parquet file
                    continue
        for name, (file, buffer) in list(self._open.items()):
            # Before the rest is read: a journal is complete when it is deleted.
            is_complete = not (self._folder / ".journal" / f"{name}.journal").exists()
            while part := file.read(READ_BYTES):
                buffer.extend(part)
                answers = self._take(buffer)
                if answers is None:
                    is_complete = True
                    break
                yield answers
            if is_complete:
                file.close()
                del self._open[name]
                self.read_whole.add(name)

    def _take(self, buffer: bytearray) -> list[Answer] | None:
        """Returns the answers of the complete messages; None if the file is damaged from here on."""
        try:
            frames = take_frames(buffer)
            return [
                answer
                for frame in frames
                for answer in answers_of(self._decoder.decode(frame.payload), self._slices)
            ]
        except (Damaged, msgspec.MsgspecError, ValueError, TypeError, IndexError) as error:
            log.warning(
                "a journal of the prediction log is damaged (%s): feedback skips the rest of it",
                type(error).__name__,
            )
            return None

    def close(self) -> None:
        """Closes the files."""
        for file, _ in self._open.values():
            file.close()
        self._open.clear()
