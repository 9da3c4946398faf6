"""`serving.process.heartbeat`: who is silent, and for how long, by a clock that the tests turn."""

import os
import subprocess
import sys
from pathlib import Path

from serving.process.heartbeat import MAX_LOOK_SECONDS, Silence, _end, _read_beats, beat


def test_a_process_is_silent_from_its_last_sign_of_life():
    silence = Silence()
    assert silence.look({1: 10, 2: 10}, 1) == {1: 0, 2: 0}
    assert silence.look({1: 11, 2: 10}, 1) == {1: 0, 2: 1}
    assert silence.look({1: 12, 2: 10}, 1.5) == {1: 0, 2: 2.5}
    assert silence.look({1: 13, 2: 9}, 1) == {1: 0, 2: 0}  # a clock that was set back is a sign, too


def test_a_machine_that_was_asleep_makes_nobody_silent():
    silence = Silence()
    silence.look({1: 10}, 1)
    assert silence.look({1: 10}, 8 * 3600) == {1: MAX_LOOK_SECONDS}


def test_a_process_that_has_gone_is_forgotten():
    silence = Silence()
    silence.look({1: 10}, 1)
    assert silence.look({}, 1) == {}
    assert silence.look({1: 10}, 1) == {1: 0}  # another one of its number


def test_a_sign_of_life_differs_from_the_one_before(tmp_path: Path):
    beat(tmp_path)
    first = _read_beats(tmp_path)
    os.utime(tmp_path / "beats" / str(os.getpid()), ns=(0, 0))
    beat(tmp_path)
    assert set(first) == {os.getpid()}
    assert _read_beats(tmp_path)[os.getpid()] > 0


def test_where_nothing_can_be_written_nobody_is_watched_over(tmp_path: Path):
    beat(tmp_path / "nowhere")
    assert _read_beats(tmp_path / "nowhere") == {}


def test_no_process_of_others_is_killed(tmp_path: Path):
    """The number of a worker that has ended may be another process' by now."""
    grandchild = (
        "import subprocess as s, sys; p = s.Popen(['sleep', '30']); print(p.pid, flush=True); p.wait()"
    )
    with subprocess.Popen([sys.executable, "-c", grandchild], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        stranger = int(child.stdout.readline())
        (tmp_path / "beats").mkdir()
        (tmp_path / "beats" / str(stranger)).touch()
        _end(tmp_path, stranger, 99)
        assert _read_beats(tmp_path) == {}
        assert child.poll() is None
        os.kill(stranger, 0)
        _end(tmp_path, child.pid, 99)
        assert child.wait(10) == -9
        os.kill(stranger, 9)
