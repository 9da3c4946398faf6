"""The page of `drift_report.py` in a real browser: it fits, loads nothing, and runs nothing that a name says."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scripts import drift_report
from scripts.reporting.page import draw_page, explain
from serving.model.schema import Inputs
from serving.runtime import Output
from tests.monitoring.prediction_log.answered import manifest_of
from tests.scripts.reporting.logs import answered, prepare, write_log
from tests.support.browser import chromium

HOSTILE = "<img src=x onerror=\"document.title='taken over'\"></svg></style><script>document.title='taken over'</script>&'"
N_ROWS = 600


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which the model, its inputs, their values and its labels have hostile names."""
    folder = tmp_path_factory.mktemp("report")
    long_name = "averyveryverylongname" * 8
    manifest = manifest_of(
        *({"type": "string", "name": name} for name in (HOSTILE, f"hidden {HOSTILE}", f"odd {HOSTILE}")),
        {"type": "double", "name": long_name},
        name="churn",
        version="3",
    )

    def rows(value: str) -> tuple[Inputs, Output]:
        texts = np.full(N_ROWS, value, dtype=object)
        inputs = Inputs((texts, texts, texts, np.linspace(-1e9, 1e9, N_ROWS)), N_ROWS)
        return inputs, Output(labels=np.full(N_ROWS, HOSTILE, dtype=object))

    prepare(manifest, *rows(HOSTILE), folder / "home")
    write_log(
        folder / "log",
        *(answered(manifest, *rows("another"), hours_ago=ago) for ago in (1, 0)),
        log_exclude=f"hidden {HOSTILE}",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(folder / "home"))
        assert drift_report.main(["--folder", str(folder / "log"), "--out", str(folder / "drift.html")]) == 0
    return folder / "drift.html"


def test_it_shows_names_as_they_are_and_runs_nothing(page: Path, tmp_path: Path):
    shown, console = chromium(tmp_path, page.as_uri())
    assert console == ""
    assert "<title>Drift of churn version 3</title>" in shown
    assert not re.search("<(img|script)", shown)
    for text in (
        f"2 of 4 drifted: {HOSTILE}, odd {HOSTILE}</b>",
        f"{HOSTILE} <span",
        f"<title>{HOSTILE[:39]}…: 0 % now, 100 % in the reference</title>",
        f"<title>{HOSTILE[:39]}…: 100 % now, 100 % in the reference</title>",
        f"<li>hidden {HOSTILE}: not logged (SERVING_LOG_EXCLUDE)</li>",
        "1,200 rows (1,200 as champion) against 600 of the sample of training rows.",
    ):
        assert text in shown.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def test_it_has_no_address_and_no_style_that_its_policy_refuses(page: Path):
    text = page.read_text()
    assert not re.search(r"https?://|url\(|@import|<[^>]*\sstyle=", text)
    assert "default-src 'none'" in text


def test_names_of_models_are_escaped():
    facts = {"models": [], "left_out": [{"why": HOSTILE}], "since": "2026-11-28", "until": "2026-11-29"}
    assert "<img" not in draw_page(facts)


@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_on_a_phone_and_on_a_desk(width: int, page: Path, tmp_path: Path):
    measuring = "<script>document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth</script></body>"
    changed = tmp_path / "page.html"
    # Without the policy, which would refuse the script.
    changed.write_text(page.read_text().replace("http-equiv", "data-was").replace("</body>", measuring))
    shown, _ = chromium(tmp_path, changed.as_uri(), f"--window-size={width},900")
    assert 'data-wide="false"' in shown


@pytest.mark.parametrize(
    ("psi", "rows", "has_drifted", "words"),
    [
        (0.5, 600, True, "Drifted: PSI 0.5 is above 0.25; chance alone makes up to 0.03."),
        (0.25, 600, False, "No drift: PSI 0.25 is not above 0.25."),
        (0.5, 499, False, "Not called drift: PSI 0.5 is above 0.25, but of 499 rows; 500 are needed."),
        (0.5, 600, False, "Not called drift: PSI 0.5 is above 0.25, but the reference is so small"),
    ],
)
def test_the_verdict_has_its_reason(psi: float, rows: int, has_drifted: bool, words: str):
    feature: dict[str, Any] = {"psi": psi, "psi_by_chance": 0.03, "rows": rows, "has_drifted": has_drifted}
    assert explain(feature).startswith(words)
