"""`POST /v1/feedback` and `GET /v1/quality`, as a worker sees them: it passes bodies on, and shows a file."""

import asyncio
import contextlib
from pathlib import Path

import msgspec

from serving.codecs.media_types import Body
from serving.errors import FeedbackUnavailable, InvalidInput, MalformedBody, ServingError
from serving.monitoring.feedback.exposition import exposition
from serving.monitoring.feedback.options import HEADER, quality_path, socket_path

ANSWER_SECONDS = 60.0
"""Time for the keeper to answer."""

ERRORS: dict[int, type[ServingError]] = {400: MalformedBody, 422: InvalidInput}
"""What the keeper's statuses mean."""


class Feedback:
    """The worker's end of the truth loop."""

    def __init__(self, run_directory: Path) -> None:
        """Takes the folder that the service's processes share."""
        self._socket, self._file = socket_path(run_directory), quality_path(run_directory)
        self._read_at, self._quality, self._metrics = 0, b"", b""

    async def pass_on(self, body: Body) -> bytes:
        """Returns the keeper's answer to a body.

        Raises:
            MalformedBody: the body is not JSON.
            InvalidInput: it is not what was expected.
            FeedbackUnavailable: the keeper or its store does not answer; nothing was kept.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                reader, writer = await asyncio.open_unix_connection(self._socket)
                try:
                    writer.write(HEADER.pack(len(body)))
                    writer.write(body)
                    await writer.drain()
                    status, answer = msgspec.json.decode(await reader.read(), type=tuple[int, msgspec.Raw])
                finally:
                    # A busy keeper has not read the body yet: closing in good order would wait for that.
                    writer.transport.abort()
        except (OSError, TimeoutError, msgspec.MsgspecError):
            raise FeedbackUnavailable("feedback cannot be kept at the moment; send it again later") from None
        if status == 200:  # HTTP
            return bytes(answer)
        raise ERRORS.get(status, FeedbackUnavailable)(msgspec.json.decode(answer)["message"])

    def quality(self) -> bytes:
        """Returns the last evaluation.

        Raises:
            FeedbackUnavailable: there is none yet.
        """
        self._read()
        if not self._quality:
            raise FeedbackUnavailable("quality was not evaluated yet; try again in a moment")
        return self._quality

    def metrics(self) -> bytes:
        """Returns the last evaluation in Prometheus' text format; empty if there is none yet."""
        self._read()
        if self._quality and not self._metrics:
            self._metrics = exposition(msgspec.json.decode(self._quality))
        return self._metrics

    def _read(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            changed_at = self._file.stat().st_mtime_ns
            if changed_at != self._read_at:
                self._read_at, self._quality, self._metrics = changed_at, self._file.read_bytes(), b""
