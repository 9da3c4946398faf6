"""`serving.http.feedback`: a worker does not wait for a keeper that is busy or gone."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from serving.errors import FeedbackUnavailable
from serving.http import feedback
from serving.http.feedback import Feedback
from serving.monitoring.feedback.options import socket_path


@pytest.mark.parametrize("n_bytes", [10, 5_000_000])
def test_a_keeper_that_reads_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int
):
    monkeypatch.setattr(feedback, "ANSWER_SECONDS", 0.2)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_path(tmp_path)))
        listener.listen()
        started = time.monotonic()
        with pytest.raises(FeedbackUnavailable):
            asyncio.run(asyncio.wait_for(Feedback(tmp_path).pass_on(b"x" * n_bytes), 10))
        assert time.monotonic() - started < 5
