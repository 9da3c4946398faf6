"""Which logged rows are replayed: whole requests of the champion, the same at each run."""

from pathlib import Path

import pytest

from scripts.lifecycle import LifecycleError
from scripts.replaying.sample import read_sample
from serving.monitoring.prediction_log.journal import Journal
from serving.monitoring.prediction_log.reading import ALWAYS
from tests.monitoring.prediction_log.answered import finished, frame_of, numbers
from tests.support.manifests import some_manifest


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


def sampled(folder: Path, limit: int = 10_000):
    return read_sample(folder, "churn", "3", ALWAYS, limit)


def requests_of(sample) -> list[list[tuple[str, int]]]:
    pairs = list(zip(sample.table["request_id"].to_pylist(), sample.table["row"].to_pylist(), strict=True))
    stops = [*sample.starts[1:], len(pairs)]
    return [pairs[start:stop] for start, stop in zip(sample.starts, stops, strict=True)]


def test_only_rows_of_the_champion_count(journal: Journal, tmp_path: Path):
    journal.append(frame_of(finished(numbers(2), request_id="a")))
    journal.append(frame_of(finished(numbers(2), request_id="b", role="shadow")))
    journal.append(frame_of(finished(numbers(2), request_id="c", manifest=some_manifest(version="2"))))
    journal.append(frame_of(finished(numbers(2), request_id="d", manifest=some_manifest(name="another"))))
    sample = sampled(tmp_path)
    assert requests_of(sample) == [[("a", 0), ("a", 1)]]
    assert sample.n_logged == 2
    with pytest.raises(LifecycleError, match=r"there are 2 of version 2, 2 of version 3 \(--champion\)"):
        read_sample(tmp_path, "churn", "9", ALWAYS, 10)


def test_a_sample_has_whole_requests_and_grows_with_the_limit(journal: Journal, tmp_path: Path):
    for number in range(100):
        journal.append(frame_of(finished(numbers(3), request_id=f"r{number}")))
    small, large, again = (sampled(tmp_path, limit) for limit in (31, 100, 31))
    assert small.table.num_rows == 30
    assert {len(request) for request in requests_of(small)} == {3}
    assert small.n_logged == 300
    assert small.table.equals(again.table)
    ids = [set(sample.table["request_id"].to_pylist()) for sample in (small, large)]
    assert ids[0] < ids[1]
    # Not the first or the last ones: a tenth of 100 requests is spread over all of them.
    positions = sorted(int(one[1:]) for one in ids[0])
    assert positions[0] < 50 < positions[-1]
    assert sampled(tmp_path, 1).table.num_rows == 3


def test_rows_of_a_request_follow_each_other_even_if_it_was_logged_in_parts(journal: Journal, tmp_path: Path):
    journal.append(
        frame_of(finished(numbers(2_500), request_id="long"), finished(numbers(2), request_id="b"))
    )
    assert requests_of(sampled(tmp_path)) == [[("b", 0), ("b", 1)], [("long", row) for row in range(2_500)]]


def test_requests_that_share_an_id_are_told_apart_and_cut(journal: Journal, tmp_path: Path):
    for number in range(10):
        ended = 1_000 + number
        journal.append(
            frame_of(finished(numbers(2, 2 * number), request_id="same", started=ended - 1, ended=ended))
        )
    sample = sampled(tmp_path)
    assert requests_of(sample) == [[("same", 0), ("same", 1)]] * 10
    assert sample.table["input_a"].to_pylist() == list(range(20))
    assert len(requests_of(sampled(tmp_path, 6))) == 3
