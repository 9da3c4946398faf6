"""`make demo-drift` shows what it promises: exactly the shifted input is named, and the better version is found."""

import shutil
import subprocess
import sys

from tests.support.environment import ROOT, clean_environment


def test_the_shifted_input_is_named_and_the_better_version_found() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "demo_drift.py")],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/v1/drift: drifted: nothing" in done.stdout
    assert "    /v1/drift: drifted: monthly_charges" in done.stdout
    assert "    received 1,500, of rows that were answered: 1,500" in done.stdout
    assert "    /v1/quality: version 2 (shadow) against version 1: better" in done.stdout
    if shutil.which("prometheus"):
        assert '    model_challenger_verdict{metric="accuracy"}: 1\n' in done.stdout
    assert "== exactly the shifted input was named, and version 2 is better" in done.stdout
