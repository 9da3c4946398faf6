"""Compares a server's answers with the model's, before timing."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.bulk import post
from benchmarks.failures import BenchmarkFailure, Refused
from benchmarks.peers.protocol import Answer, Peer, Request
from benchmarks.processes import Server
from benchmarks.rows import Model, Record

TOLERANCE = 1e-6
PATIENCE_SECONDS = 20
"""How long a server may reject requests: BentoML's batching does until it has learned how long a batch takes.
Rejections under load are counted there."""


def check_answers(server: Server, peer: Peer, model: Model, records: Sequence[Record]) -> None:
    """Requests the first rows in one call, then each row from concurrent clients.

    Raises:
        BenchmarkFailure: a number differs from the model's own by more than `TOLERANCE`, or a label differs.
    """
    n_rows = len(model.labels)
    everything = peer.answer(post_patiently(server, peer.request(records[:n_rows], model)), model)

    def ask(row: int) -> Answer | None:
        return peer.answer(post_patiently(server, peer.request(records[row : row + 1], model)), model)

    compare(everything, model, list(range(n_rows)))
    with ThreadPoolExecutor(8) as clients:
        for row, answer in enumerate(clients.map(ask, range(n_rows))):
            compare(answer, model, [row])


def post_patiently(server: Server, request: Request) -> bytes:
    """Retries a rejected request; raises the last rejection after `PATIENCE_SECONDS`."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return post(server, request)
        except Refused:
            if time.monotonic() > ends:
                raise
            time.sleep(0.2)


def compare(answer: Answer | None, model: Model, rows: list[int]) -> None:
    """Compares an answer to these rows with the model's own."""
    if answer is None:
        return
    if answer.labels is not None and answer.labels != [model.labels[row] for row in rows]:
        raise BenchmarkFailure("its labels are not the model's")
    if answer.probabilities is None:
        return
    expected = [model.probabilities[row] for row in rows]
    if [len(row) for row in answer.probabilities] != [len(row) for row in expected]:
        raise BenchmarkFailure("it does not return one probability per row and class")
    pairs = zip(answer.probabilities, expected, strict=True)
    difference = max(abs(a - b) for got, want in pairs for a, b in zip(got, want, strict=True))
    if not difference <= TOLERANCE:
        raise BenchmarkFailure(f"its probabilities differ from the model's by {difference:.3g}")
