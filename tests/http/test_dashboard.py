"""The status page in a real browser: shows what the service says, and runs nothing that a name says."""

import json
from pathlib import Path
from typing import Any

import pytest

from serving.http.dashboard import dashboard_page
from tests.support.browser import chromium
from tests.support.doubles import Double, Quiet

HOSTILE = (
    "<img src=x onerror=\"document.title='taken over'\"></script><script>document.title='taken over'</script>"
)

MODELS: dict[str, Any] = {
    "ready": True,
    "stale": f"the registry said {HOSTILE}",
    "held_back": {"shadow": "no such alias"},
    "autopilot": {"tag": "true", "trouble": "it needs truths"},
    "refused": [
        {"version": "9", "code": "refused", "reason": f"raised {HOSTILE}", "at": "2026-11-28T10:00:00+00:00"}
    ],
    "models": [
        {
            "name": f"churn {HOSTILE}",
            "version": "7",
            "semantic_version": "2.1.0",
            "role": "champion",
            "percent": 100,
            "runtime": "compiled",
            "loaded_at": "2026-11-28T10:00:00+00:00",
        }
    ],
}
FEATURE = {
    "feature": HOSTILE,
    "kind": "input",
    "psi": 1.234,
    "has_drifted": True,
    "bins": [{"bin": HOSTILE, "now": 0.75, "reference": 0.25}],
}
DRIFT = {
    "models": [
        {
            "name": "churn",
            "version": "7",
            "role": "champion",
            "window_seconds": 3600,
            "rows": 1234,
            "reference": {"rows": 1000},
            "drifted": [HOSTILE],
            "note": "",
            "features": [FEATURE, *({**FEATURE, "feature": f"f{n}"} for n in range(70))],
        }
    ]
}
DAYS = [("2026-11-26", 0.8, 40), ("2026-11-28", 0.9, 60)]
MEASURED = {"accuracy": 0.86, "f1": 0.5, "log_loss": 0.321}
QUALITY: dict[str, Any] = {
    "model": "churn",
    "updated": "2026-11-28T12:00:00Z",
    "feedback": {"truths": 1234, "unknown": 5},
    "windows": [
        {
            "window": "7d",
            "versions": [
                {
                    "version": HOSTILE,
                    "role": "champion",
                    "rows": 2000,
                    "labels": 100,
                    "metrics": MEASURED,
                    "calibration": {
                        "of": f"probability of {HOSTILE}",
                        "bins": [{"low": 0, "high": 0.1, "n_rows": 30, "predicted": 0.07, "observed": 0.1}],
                    },
                    "estimate": {
                        "accuracy": 0.84,
                        "standard_error": 0.0123,
                        "check": {"has_held": False},
                    },
                },
                {"version": "8", "role": "shadow", "rows": 2000, "labels": 0, "metrics": {}},
            ],
        }
    ],
    "over_time": [
        {
            "date": date,
            "version": HOSTILE,
            "role": "champion",
            "labels": labels,
            "metrics": {"accuracy": accuracy},
        }
        for date, accuracy, labels in DAYS
    ],
    "comparisons": [
        {
            "champion": "7",
            "challenger": HOSTILE,
            "role": "shadow",
            "confidence": 0.95,
            "metrics": {
                "accuracy": {
                    "verdict": "better",
                    "value": 0.058,
                    "low": 0.021,
                    "high": 0.096,
                    "more_labels": 0,
                },
                "log_loss": {
                    "verdict": "not yet",
                    "value": -0.01,
                    "low": -0.05,
                    "high": 0.03,
                    "more_labels": 1234,
                },
            },
        }
    ],
}

LABELS = 'model_name="churn",model_version="7",role="champion"'


def metrics(n_looks: int) -> str:
    """Each look finds 100 requests of 5 rows more, all of them between 10 and 20 ms."""
    n = 100 * n_looks
    return f"""# TYPE model_predictions_total counter
model_predictions_total{{{LABELS}}} {5 * n}.0
model_prediction_latency_seconds_bucket{{{LABELS},le="0.01"}} 0.0
model_prediction_latency_seconds_bucket{{{LABELS},le="0.02"}} {n}.0
model_prediction_latency_seconds_bucket{{{LABELS},le="+Inf"}} {n}.0
model_prediction_latency_seconds_count{{{LABELS}}} {n}.0
model_prediction_latency_seconds_count{{model_name="churn",model_version="8",role="shadow"}} 9999.0
model_swaps_total{{model_name="{HOSTILE.replace('"', chr(92) + '"')}",outcome="swapped"}} 3.0
model_active_requests 4.0
"""


FEEDBACK = f"""model_feedback_truths_total 1234.0
model_labels{{{LABELS},window="7d"}} 100.0
"""


class Service(Double):
    """Answers what the page asks for."""

    def __init__(self, *, has_feedback: bool = False) -> None:
        super().__init__(_Handler)
        self.has_feedback = has_feedback
        self.n_looks = 0
        self.asked: list[str] = []


class _Handler(Quiet):
    server: Service

    def do_GET(self) -> None:
        """Answers."""
        self.server.asked.append(self.path)
        match self.path:
            case "/dashboard":
                self.answer(dashboard_page(), media_type="text/html; charset=utf-8")
            case "/v1/models":
                self.answer(json.dumps(MODELS).encode())
            case "/v1/drift":
                self.answer(json.dumps(DRIFT).encode())
            case "/metrics":
                self.server.n_looks += 1
                shown = metrics(self.server.n_looks) + (FEEDBACK if self.server.has_feedback else "")
                self.answer(shown.encode(), media_type="text/plain")
            case "/v1/quality" if self.server.has_feedback:
                self.answer(json.dumps(QUALITY).encode())
            case _:
                self.answer(b"", 404)


def test_it_shows_what_the_service_says_and_runs_nothing_of_it(tmp_path: Path) -> None:
    with Service().running() as service:
        page, console = chromium(tmp_path, f"{service.url}/dashboard")
    assert console == ""
    assert set(service.asked) <= {"/dashboard", "/v1/models", "/v1/drift", "/metrics"}
    body = page.partition("<body>")[2].partition("<script>")[0]
    assert "<img" not in body
    assert '<section id="quality" hidden="">' in body
    assert "<title>churn &lt;img" in page
    shown = body.replace("&lt;", "<").replace("&gt;", ">")
    for text in (
        f"churn {HOSTILE} version 7</h1>",
        f"the registry said {HOSTILE}; no shadow: no such alias; autopilot: it needs truths</div>",
        "<td>7 (2.1.0)</td><td>champion</td><td>100 %</td><td>compiled</td>",
        f"<td>raised {HOSTILE}</td>",
        "1,234 rows of the last 60 minutes against 1,000 of the reference.",
        f"drifted: {HOSTILE}</strong>",
        "stability index 1.23: drifted",
        f"<title>{HOSTILE}: 75 % now, 25 % in the reference</title>",
        "and 11 more, in /v1/drift",
        "since the start: 3 swapped in, 0 refused, 0 failed attempts",
        # By hand: all answers are between 10 and 20 ms, so the median is in the middle.
        ">p50</span><b>15 ms</b>",
        ">p99</span><b>19.9 ms</b>",
        ">in progress</span><b>4</b>",
    ):
        assert text in shown


def test_it_shows_quality_if_there_is_feedback(tmp_path: Path) -> None:
    with Service(has_feedback=True).running() as service:
        page, console = chromium(tmp_path, f"{service.url}/dashboard")
    assert console == ""
    body = page.partition("<body>")[2].partition("<script>")[0]
    assert "<img" not in body
    assert '<section id="quality">' in body
    shown = body.replace("&lt;", "<").replace("&gt;", ">")
    for text in (
        'href="v1/quality">/v1/quality</a>',
        "1,234 truths, 5 of them about unknown answers; evaluated ",
        f'version {HOSTILE} (shadow) against version 7, accuracy: <strong class="good">better</strong>'
        '<span class="soft"> (difference +0.058, between +0.021 and +0.096, at 95 % confidence)',
        "log loss: <strong>not clear yet, about 1,200 more labels are needed</strong>"
        '<span class="soft"> (difference -0.01, between -0.05 and +0.03',
        "<th>labels</th><th>accuracy</th><th>F1</th><th>log loss</th><th>estimate without truth</th>",
        f"<td>{HOSTILE}</td><td>champion</td><td>2,000</td><td>100</td><td>0.86</td><td>0.5</td><td>0.321</td>"
        '<td class="warn">0.84 ± 0.025, did not hold before</td>',
        "<td>8</td><td>shadow</td><td>2,000</td><td>0</td><td>–</td><td>–</td><td>–</td><td>–</td>",
        "accuracy by day: 0.8 to 0.9",
        "<title>2026-11-28: 0.9, 60 labels</title>",
        f"probability of {HOSTILE}: predicted",
        "<title>7 % predicted, 10 % observed, 30 labels</title>",
    ):
        assert text in shown


def test_it_says_that_the_service_is_gone(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_bytes(dashboard_page())
    page, _ = chromium(tmp_path, (tmp_path / "page.html").as_uri())
    assert "no answer: " in page


@pytest.mark.parametrize("width", [360, 1400])
def test_it_fits_on_a_phone_and_on_a_desk(width: int, tmp_path: Path) -> None:
    """No element is wider than the window, but for tables, which scroll."""
    measuring = (
        b"<script>new MutationObserver(() => { document.body.dataset.wide = "
        b"document.documentElement.scrollWidth > innerWidth; }).observe(document.body, {childList: true, subtree: true});"
        b"</script></body>"
    )

    class Measured(_Handler):
        def answer(self, body: bytes, status: int = 200, media_type: str = "application/json") -> None:
            # Without the policy, which would refuse a second script.
            changed = body.replace(b"http-equiv", b"data-was").replace(b"</body>", measuring)
            super().answer(changed, status, media_type)

    with Service(has_feedback=True).running() as service:
        service.RequestHandlerClass = Measured
        page, _ = chromium(tmp_path, f"{service.url}/dashboard", f"--window-size={width},900")
    assert 'data-wide="false"' in page
