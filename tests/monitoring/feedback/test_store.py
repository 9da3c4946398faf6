"""What a store promises, on SQLite and on PostgreSQL."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.monitoring.feedback.databases import StoreError
from serving.monitoring.feedback.store import KeyTruth, Store, Truth, open_store
from tests.monitoring.feedback.told import DAY, NOW, answer, number
from tests.support.environment import ROOT, wait_until
from tests.support.postgresql import PostgreSQL

Told = dict[tuple[str, int], str]


def told(store: Store, since: float = 0.0) -> Told:
    return {(row[3], row[4]): row[-1] for row in store.told("churn", since, 100)}


def untold(store: Store) -> set[str]:
    return {str(row[3]) for row in store.untold("churn", 0.0, 100)}


def test_a_truth_finds_its_answer_whichever_comes_first(store: Store):
    store.add_truths("churn", [Truth("late", 0, "yes"), Truth("never", 0, "no")], [])
    store.add_answers([answer("late"), answer("untold")])
    assert told(store) == {("late", 0): "yes"}
    assert untold(store) == {"untold"}
    assert store.count_truths("churn") == (2, 1)


def test_the_same_again_changes_nothing_and_the_last_truth_counts(store: Store):
    for truth in ("yes", "yes", "no"):
        store.add_answers([answer("r"), answer("r", 1)])
        store.add_truths("churn", [Truth("r", 1, truth)], [])
    assert told(store) == {("r", 1): "no"}
    assert store.count_answers("churn", 0.0) == {("7", "champion"): (2, NOW)}
    assert store.count_truths("churn") == (1, 0)


def test_a_row_has_an_answer_of_each_role_and_its_truth_is_about_all(store: Store):
    store.add_answers([answer("r"), answer("r", role="shadow", version="8")])
    store.add_truths("churn", [Truth("r", 0, "no")], [])
    assert sorted((row[0], row[1], row[-1]) for row in store.told("churn", 0.0, 100)) == [
        ("7", "champion", "no"),
        ("8", "shadow", "no"),
    ]


def test_a_truth_by_key_is_about_the_answers_before_it(store: Store):
    now = time.time()
    store.add_answers(
        [
            answer("a", key="k", time=now - DAY),
            answer("b", key="k", time=now),
            answer("other", key="l", time=now),
        ]
    )
    store.add_answers([answer("later", key="k", time=now + DAY)])
    store.add_truths("churn", [], [KeyTruth("k", "no"), KeyTruth("nobody", "no")])
    assert told(store) == {("a", 0): "no", ("b", 0): "no"}
    assert untold(store) == {"other", "later"}
    assert store.count_truths("churn") == (2, 1)
    store.add_truths("churn", [Truth("a", 0, "yes")], [])
    assert told(store) == {("a", 0): "yes", ("b", 0): "no"}
    assert sorted(store.truths("churn")) == [Truth("a", 0, "yes"), Truth("b", 0, "no")]


def test_a_truth_by_key_that_is_repeated_is_about_the_answers_since(
    store: Store, monkeypatch: pytest.MonkeyPatch
):
    now = time.time()
    for days, request_id in ((3, "a"), (1, "b")):
        store.add_answers([answer(request_id, key="k", time=now - days * DAY)])
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda at=now - (days - 1) * DAY: at)
            store.add_truths("churn", [], [KeyTruth("k", "no")])
    assert told(store) == {("a", 0): "no", ("b", 0): "no"}


def test_finds_what_truths_are_about(store: Store):
    store.add_answers([answer("r", key="k"), number("n", 1.5, version="8"), answer("r", model="other")])
    truths = [Truth("r", 0, "x"), Truth("n", 0, "x"), Truth("r", 1, "x"), Truth("'; DROP", 0, "x")]
    assert store.find("churn", truths) == {("r", 0): ("yes", "7"), ("n", 0): (None, "8")}
    assert store.find_keys("churn", ["k", "l"]) == {"k": ("yes", "7")}
    assert store.classes("churn", "7") == ["no", "yes"]
    assert store.classes("churn", "8") == []


def test_keeps_what_it_was_given(store: Store):
    given = answer(
        "ü\n'\"", 2, value=0.1 + 0.2, label=None, key="–", slices='{"region":"Zürich"}', time=NOW + 1 / 3
    )
    store.add_answers([given])
    (row,) = store.untold("churn", 0.0, 10)
    assert tuple(row) == (
        *("7", "champion", NOW + 1 / 3, "ü\n'\"", 2),
        *(None, 0.1 + 0.2, 0.75, '{"no": 0.25, "yes": 0.75}', '{"region":"Zürich"}'),
    )


def test_many_rows_and_truths(store: Store):
    n = 12_345  # more than one statement takes
    store.add_answers(answer(f"r{i}") for i in range(n))
    truths = [Truth(f"r{i}", 0, "yes") for i in range(n)]
    assert len(store.find("churn", truths)) == n
    store.add_truths("churn", truths, [])
    assert store.count_truths("churn") == (n, 0)


def test_many_keys_are_found_without_a_search_through_all_answers(store: Store):
    n = 5_000
    store.add_answers(answer(f"r{i}", key=f"k{i}") for i in range(n))
    started = time.perf_counter()
    assert len(store.find_keys("churn", [f"k{i}" for i in range(n)])) == n
    assert time.perf_counter() - started < 4  # takes 0.04 s; 17 s if all answers are read for each key


def test_keeps_when_a_comparison_began(store: Store):
    assert [store.start_of("churn", "7", "8", "shadow", first) for first in (NOW, NOW - DAY)] == [NOW, NOW]
    assert store.start_of("churn", "7", "8", "challenger", NOW + 1) == NOW + 1


def test_forgets_what_is_old(store: Store):
    store.add_answers([answer("old", time=NOW - DAY), answer("new", time=NOW)], "file")
    store.add_truths("churn", [Truth("old", 0, "yes")], [KeyTruth("k", "yes")])
    store.delete_old("churn", NOW - 1)
    assert untold(store) == {"new"}
    store.delete_old("churn", time.time() + 1)
    assert store.count_truths("churn") == (0, 0)
    assert store.has_files() == {"file"}
    store.delete_old("churn", time.time() + 3 * DAY)
    assert store.has_files() == set()


def test_a_deleted_file_is_noticed(tmp_path: Path):
    with open_store("sqlite", tmp_path) as store:
        store.check()
        (tmp_path / ".feedback.db").unlink()
        for _ in range(2):  # also when another process has made a new one
            with pytest.raises(StoreError, match="No such file"):
                store.check()
            open_store("sqlite", tmp_path).close()


def test_one_connection_at_a_time_may_move(opening: Callable[[], Store]):
    first, second = opening(), opening()
    with first.moving() as is_ours, second.moving() as is_theirs:
        assert (is_ours, is_theirs) == (True, False)
    with second.moving() as is_theirs:
        assert is_theirs


def test_a_killed_mover_loses_its_lock(store: Store, tmp_path: Path, request: pytest.FixtureRequest):
    is_file = "sqlite" in request.node.callspec.id
    url = "sqlite" if is_file else request.getfixturevalue("postgresql").url
    code = (
        "import sys, time; from pathlib import Path; from serving.monitoring.feedback.store import open_store\n"
        "with open_store(sys.argv[1], Path(sys.argv[2])) as store, store.moving() as is_ours:\n"
        "    print(is_ours, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, url, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with store.moving() as is_ours:
            assert not is_ours
        holder.kill()

    def is_free() -> bool:
        with store.moving() as is_ours:
            return is_ours

    wait_until(is_free, 20, "the lock is free")


def test_several_open_an_empty_store_at_once(postgresql: PostgreSQL, tmp_path: Path):
    for url in ("sqlite", postgresql.url):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda url: open_store(url, tmp_path).close(), [url] * 8))


def test_says_where_and_why_it_cannot_be_opened(postgresql: PostgreSQL, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"Not a directory|File exists"):
        open_store("sqlite", tmp_path / "file")
    for url, why in (
        ("postgresql://u:secret@127.0.0.1:1/x", "PostgreSQL at 127.0.0.1: .*refused"),
        (
            postgresql.url.replace("/postgres", "/nothing").replace("//nothing:", "//postgres:"),
            '"nothing" does not exist',
        ),
        ("postgresql://u:secret@127.0.0.1:port/x", "PostgreSQL"),
    ):
        with pytest.raises(StoreError, match=why) as caught:
            open_store(url, tmp_path)
        assert "secret" not in str(caught.value)
