"""What the keeper does when the clock or its helpers fail."""

import time
from pathlib import Path
from unittest import mock

import pytest

from serving.monitoring.feedback.options import STORE_VARIABLE, Options
from serving.monitoring.feedback.store import Truth, open_store
from tests.monitoring.feedback.told import DAY, answer


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    monkeypatch.setenv(STORE_VARIABLE, "sqlite")
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return Options(str(tmp_path), str(tmp_path), "churn", (), 30 * DAY, 60, "text")


def test_a_clock_that_is_set_forward_deletes_nothing(options: Options, tmp_path: Path):
    from serving.monitoring.feedback.keeper import Keeper

    with open_store("sqlite", tmp_path) as store:
        store.add_answers([answer(time=time.time())])
        store.add_truths("churn", [Truth("r", 0, "yes")], [])
        keeper = Keeper(options)
        try:
            with mock.patch("time.time", return_value=time.time() + 365 * DAY):
                store.delete_old("churn", keeper._oldest(time.monotonic()))
        finally:
            keeper.close()
        assert store.count_truths("churn") == (1, 0)


def test_a_killed_helper_is_told(options: Options, caplog: pytest.LogCaptureFixture, tmp_path: Path):
    from serving.monitoring.feedback.keeper import _Child

    (tmp_path / "killed.py").write_text("import os; os.kill(os.getpid(), 9)")
    with mock.patch.dict("os.environ", PYTHONPATH=str(tmp_path)):
        child = _Child("killed")
        child.start()
    deadline = time.monotonic() + 30
    while not child.has_ended():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert child.has_failed
    assert "killed was killed" in caplog.text
