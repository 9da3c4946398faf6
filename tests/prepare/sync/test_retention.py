"""`serving.prepare.sync.retention`: what stays on disk, whatever the clock says and whoever else is there."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.model.prepared import preparing, publish
from serving.prepare.sync.retention import Retention
from serving.settings import Settings
from tests.support.manifests import some_manifest

DAY_SECONDS = 86_400


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty BentoML home."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return tmp_path


def store(version: str, *, used_days_ago: float, n_bytes: int = 0) -> str:
    """Puts a prepared model into the store; returns its tag."""
    with preparing("wine") as folder:
        (folder / "weights").write_bytes(b"x" * n_bytes)
        prepared = publish(folder, some_manifest(name="wine", version=version))
    used = time.time() - used_days_ago * DAY_SECONDS
    os.utime(prepared.folder / "manifest.json", (used, used))
    return prepared.tag


def stored(home: Path) -> set[str]:
    return {path.parent.name.partition("-")[0] for path in (home / "models" / "wine").glob("*/manifest.json")}


def keeper(keep_versions: int = 2, keep_mb: float = 1000) -> Retention:
    return Retention(Settings(model_name="wine", keep_versions=keep_versions, keep_mb=keep_mb))


def test_those_used_longest_ago_go_first(home: Path):
    tags = {days: store(str(days), used_days_ago=days) for days in (1, 2, 3, 4)}
    keeper(3).keep([tags[4]])
    assert stored(home) == {"1", "2", "4"}


def test_where_the_clock_was_set_back_those_in_use_stay_all_the_same(home: Path):
    store("1", used_days_ago=-300)
    store("2", used_days_ago=-200)
    in_use = [store("3", used_days_ago=0), store("4", used_days_ago=0)]
    keeper().keep(in_use)
    assert stored(home) == {"3", "4"}


def test_what_another_service_uses_stays_however_long_ago_that_began(home: Path):
    theirs = store("1", used_days_ago=300)
    other = keeper()
    other.keep([theirs])
    os.utime(home / "models" / Path(*theirs.split(":")) / "manifest.json", (0, 0))
    ours = [store("2", used_days_ago=0), store("3", used_days_ago=0)]
    keeper().keep(ours)
    assert stored(home) == {"1", "2", "3"}


def test_what_is_used_no_more_may_go(home: Path):
    ours = keeper()
    before = store("1", used_days_ago=0)
    for number in "234":
        now = store(number, used_days_ago=0)
        ours.keep([now, before])
        before = now
    assert stored(home) == {"3", "4"}


def test_what_takes_too_much_room_goes_but_never_what_is_in_use(home: Path):
    tags = [store(str(n), used_days_ago=9 - n, n_bytes=1_000_000) for n in range(1, 4)]
    keeper(5, keep_mb=0.5).keep(tags[2:])
    assert stored(home) == {"3"}
