"""The store has what the prediction log has, from journals and from Parquet files."""

import datetime as dt
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serving.monitoring.feedback.answers import Answer, answers_in, answers_of, log_columns
from serving.monitoring.feedback.catch_up import catch_up
from serving.monitoring.feedback.journals import Journals
from serving.monitoring.feedback.store import open_store
from serving.monitoring.prediction_log.converter import run
from serving.monitoring.prediction_log.files import find_files
from serving.monitoring.prediction_log.frames import read_frames
from serving.monitoring.prediction_log.journal import Journal, find_journals
from serving.monitoring.prediction_log.reading import read_log
from serving.monitoring.prediction_log.rows import Rows
from serving.runtime import Output
from tests.monitoring.prediction_log.answered import (
    decoded,
    finished,
    frame_of,
    manifest_of,
    numbers,
    options,
)

OLDEST = dt.date(2020, 1, 1)


def convert(folder: Path) -> None:
    assert not run(options(folder.parent, folder=str(folder)), OLDEST).trouble


def read(journals: Journals) -> list[Answer]:
    return [answer for part in journals.read() for answer in part]


def ids(answers: list[Answer]) -> list[str]:
    return [answer.request_id for answer in answers]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def test_follows_a_journal_until_it_is_converted(folder: Path):
    journals, journal = Journals(folder, ()), Journal(folder)
    assert read(journals) == []
    frame = frame_of(finished(numbers(2), request_id="a"))
    journal.append(frame[:20])
    assert read(journals) == []
    journal.append(frame[20:] + frame_of(finished(numbers(1), request_id="b")))
    found = read(journals)
    assert [(one.request_id, one.row_index) for one in found] == [("a", 0), ("a", 1), ("b", 0)]
    journal.append(frame_of(finished(numbers(1), request_id="c")))
    journal.close()
    convert(folder)
    assert find_journals(folder) == []
    assert ids(read(journals)) == ["c"]
    assert journals.read_whole == {journal.path.stem}
    assert read(journals) == []


def test_skips_the_rest_of_a_damaged_journal(folder: Path, caplog: pytest.LogCaptureFixture):
    journals, journal = Journals(folder, ()), Journal(folder)
    journal.append(frame_of(finished(numbers(1), request_id="a")))
    assert ids(read(journals)) == ["a"]
    journal.append(b"\xff" * 100)
    assert read(journals) == []
    journal.append(frame_of(finished(numbers(1), request_id="b")))
    assert read(journals) == []
    assert "is damaged" in caplog.text


def test_files_are_added_once_and_those_read_as_journals_not_at_all(folder: Path):
    for name in ("a", "b"):
        journal = Journal(folder)
        journal.append(frame_of(finished(numbers(1), request_id=name)))
        journal.close()
    first, _ = find_journals(folder)
    known = next(iter(read_frames(first)))
    convert(folder)
    name = msgspec.msgpack.decode(known.payload, type=Rows).request_ids[0]
    with open_store("sqlite", folder) as store:
        assert catch_up(store, folder, (), {first.stem}) == 1
        (row,) = store.untold("model", 0.0, 10) or store.untold(_model(folder), 0.0, 10)
        assert {row[3], name} == {"a", "b"}
        assert catch_up(store, folder, (), set()) == 0


def test_a_damaged_file_is_skipped_and_the_others_are_added(folder: Path, caplog: pytest.LogCaptureFixture):
    for name in ("a", "b"):
        journal = Journal(folder)
        journal.append(frame_of(finished(numbers(1), request_id=name)))
        journal.close()
    convert(folder)
    damaged = find_files(folder)[0].path
    content = bytearray(damaged.read_bytes())
    content[10:200] = bytes(190)
    damaged.write_bytes(content)
    with open_store("sqlite", folder) as store:
        assert catch_up(store, folder, (), set()) == 1
        assert str(damaged) in caplog.text
        caplog.clear()
        assert catch_up(store, folder, (), set()) == 0
        assert not caplog.text


def _model(folder: Path) -> str:
    return str(read_log(folder)["model"][0])


def test_both_sources_give_the_same_answers(folder: Path):
    manifest = manifest_of(
        {"name": "region", "type": "string"},
        {"name": "age", "type": "double"},
        {"name": "on", "type": "boolean"},
    )
    rows = [
        {"region": "e\0ast", "age": 1.5, "on": True},
        {"region": None, "age": None, "on": None},
        {"region": "x" * 2_000, "age": 3, "on": False},
        {"region": "\\u0000", "age": 4, "on": False},
    ]
    journal = Journal(folder)
    journal.append(
        frame_of(
            finished(decoded(manifest, rows), manifest=manifest, request_id="labels", key=b"k"),
        )
    )
    journal.append(
        frame_of(finished(numbers(2), Output(values=np.array([1.25, np.nan])), request_id="values"))
    )
    journal.append(
        frame_of(finished(numbers(1), Output(values=np.array([[1.0, 2.0]])), request_id="neither"))
    )
    journal.close()
    columns = ("region", "age", "on", "nothing")
    (path,) = find_journals(folder)
    decoder = msgspec.msgpack.Decoder(Rows)
    from_journal = [
        answer for frame in read_frames(path) for answer in answers_of(decoder.decode(frame.payload), columns)
    ]
    convert(folder)
    table = read_log(folder, columns=log_columns(columns))
    from_files = list(answers_in(table, columns))
    assert len(from_journal) == 5

    def rounded(answers: list[Answer]) -> list[Answer]:
        return sorted(one._replace(time=round(one.time, 3)) for one in answers)

    assert [one._replace(slices=None) for one in rounded(from_files)] == [
        one._replace(slices=None) for one in rounded(from_journal)
    ]
    slices = [msgspec.json.decode(one.slices) for one in sorted(from_journal) if one.slices]
    assert slices == [
        {"region": "east", "age": 1.5, "on": True},
        {"region": None, "age": None, "on": None},
        {"region": "x" * 1_000, "age": 3.0, "on": False},
        {"region": "\\u0000", "age": 4.0, "on": False},
    ]
    of_files = [msgspec.json.decode(one.slices) for one in sorted(from_files) if one.slices]
    assert [one for one in of_files if any(value is not None for value in one.values()) or "on" in one][
        :4
    ] == [{**one, "nothing": None} if "nothing" in of_files[0] else one for one in slices]
