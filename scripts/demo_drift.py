"""Shows how drift is found, and how a challenger is judged once truths arrive, on the terminal.

Takes less than two minutes, and leaves nothing behind. Exit code 0 if exactly the shifted input is named, and the better
version is found.
"""

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.demo_promotion import (  # noqa: E402  # needs the line above
    environment_in,
    free_port,
    outcome_of_training,
    say,
    serving,
    step,
    wait_ready,
)
from scripts.lifecycle.prometheus import Prometheus  # noqa: E402
from scripts.lifecycle.services import fetch  # noqa: E402
from scripts.training.churn_sample import TARGET, make_churn_sample  # noqa: E402

SHIFTED = "monthly_charges"
T = TypeVar("T")

N_ROWS, REQUEST_ROWS = 1_500, 50
SECONDS = 120
"""Timeout of each step. Evaluations take up to a tenth of the time, so the next one may be ten times as long away."""

RULES = ROOT / "monitoring" / "prometheus" / "rules.yaml"


def main() -> int:
    """Runs the demonstration; returns the exit code."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    return demonstrate()


def demonstrate(look: Callable[[str], None] | None = None) -> int:
    """Runs the demonstration; returns the exit code.

    Args:
        look: gets the service's URL at the end, while the service still runs.
    """
    say("Drift, and a verdict on a challenger; takes less than two minutes, leaves nothing behind")
    with tempfile.TemporaryDirectory(prefix="demo-") as name:
        folder = Path(name)
        environment = environment_in(folder) | {
            "SERVING_SHADOW_ALIAS": "shadow",
            "SERVING_LOG_PREDICTIONS": f"{folder}/predictions",
            "SERVING_FEEDBACK_STORE": "sqlite",
            "SERVING_QUALITY_SECONDS": "1",
        }
        return show(folder, environment, look)


def show(folder: Path, environment: dict[str, str], look: Callable[[str], None] | None) -> int:
    """Runs the steps; returns the exit code."""
    (folder / "preprocessing.py").write_bytes((ROOT / "preprocessing.py").read_bytes())
    step(
        "Train version 1 on data with mixed-up contracts, and version 2 on correct data; 2 is the shadow of 1"
    )
    rows = make_churn_sample()
    for name, table in (
        (
            "mixed.csv",
            rows.assign(contract_type=rows["contract_type"].sample(frac=1, random_state=0).to_numpy()),
        ),
        ("correct.csv", rows),
    ):
        table.to_csv(folder / name, index=False)
    train = ("train.py", "--target", TARGET, "--estimator", "linear", "--data")
    run(folder, environment, *train, "mixed.csv", "--promote")
    run(folder, environment, *train, "correct.csv")
    run(folder, environment, "shadow.py", "2")
    with serving(folder, environment) as port:
        url = f"http://127.0.0.1:{port}"
        wait_ready(url)
        wait(lambda: "shadow" in roles(url), "the shadow is loaded")
        with watching(folder / "prometheus", port) as prometheus:
            step(f"Send {N_ROWS:,} rows like those of the training")
            truths = send(url, shift=1.0, seed=7)
            before = wait_rows(url, N_ROWS)
            say(f"    /v1/drift: drifted: {', '.join(before) or 'nothing'}")
            step(f"Send {N_ROWS:,} rows with {SHIFTED} multiplied by 1.6")
            send(url, shift=1.6, seed=8)
            named = [wait_rows(url, 2 * N_ROWS)]
            say(f"    /v1/drift: drifted: {', '.join(named[0])}")
            show_bins(url)
            say(f"    the same as a picture, while this runs: {url}/dashboard")
            if prometheus is not None:
                step("Ask Prometheus, with the rules that ship")
                named.append(wait(lambda: drifted_in(prometheus), "Prometheus names an input"))
                say(f"    model_server:feature_drifted:index1h: {', '.join(named[1])}")
            step("The truth about the first rows arrives at /v1/feedback: is version 2 better?")
            give_feedback(url, truths)
            is_better = show_verdict(url)
            if prometheus is not None:
                verdict = wait(lambda: verdict_in(prometheus), "Prometheus has the verdict")
                say(f'    model_challenger_verdict{{metric="accuracy"}}: {verdict}')
        if look is not None:
            look(url)
        is_right = not before and all(set(names) - {"score", "label"} == {SHIFTED} for names in named)
    step(
        "exactly the shifted input was named, and version 2 is better" if is_right and is_better else "failed"
    )
    return 0 if is_right and is_better else 1


def run(folder: Path, environment: dict[str, str], script: str, *arguments: str) -> None:
    """Runs a script and prints the important lines of its output."""
    done = subprocess.run(  # noqa: S603  # our own words
        [sys.executable, str(ROOT / "scripts" / script), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        for part in outcome_of_training(line):
            say(f"    {part}")
    if done.returncode and done.stderr:
        say(done.stderr.strip())


def send(url: str, *, shift: float, seed: int) -> dict[str, list[str]]:
    """Sends rows; returns the truths by request."""
    rows = make_churn_sample(N_ROWS, seed=seed)
    truths = rows.pop(TARGET)
    rows[SHIFTED] *= shift
    sent: dict[str, list[str]] = {}
    for start in range(0, N_ROWS, REQUEST_ROWS):
        name = f"demo-{seed}-{start}"
        part = rows.iloc[start : start + REQUEST_ROWS]
        post(f"{url}/v1/predict", {"instances": json.loads(part.to_json(orient="records"))}, name)
        sent[name] = truths.iloc[start : start + REQUEST_ROWS].tolist()
    return sent


def post(url: str, body: dict[str, Any], request_id: str) -> dict[str, Any]:
    """Returns the answer to a JSON body."""
    headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310  # our own
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310  # our own
        found: dict[str, Any] = json.loads(answer.read())
    return found


def give_feedback(url: str, truths: dict[str, list[str]]) -> None:
    """Sends the truths of some requests."""
    request, first = next(iter(truths.items()))
    shown = ", ".join(map(json.dumps, first[:2]))
    say(f'    {{"feedback": [{{"request_id": "{request}", "truths": [{shown}, …]}}, …]}}')
    feedback = [{"request_id": name, "truths": values} for name, values in truths.items()]
    answer = post(f"{url}/v1/feedback", {"feedback": feedback}, "demo-feedback")
    say(f"    received {answer['received']:,}, of rows that were answered: {answer['matched']:,}")


def show_verdict(url: str) -> bool:
    """Prints the shadow's verdict once all truths count; returns whether it is better."""

    def look() -> dict[str, Any] | None:
        with contextlib.suppress(OSError):  # 503 before the first evaluation
            for compared in json.loads(fetch(url, "/v1/quality"))["comparisons"]:
                found: dict[str, Any] = compared["metrics"]["accuracy"]
                return found if found["difference"]["n"] == N_ROWS else None
        return None

    judged = wait(look, "/v1/quality has a verdict")
    assert judged is not None
    accuracies = " against ".join(f"{judged[role]['mean']:.4g}" for role in ("challenger", "champion"))
    say(f"    /v1/quality: version 2 (shadow) against version 1: {judged['verdict']}")
    say(
        f"    accuracy: {accuracies}, difference {judged['value']:+.4g}, "
        f"between {judged['low']:+.4g} and {judged['high']:+.4g} at 95 % confidence"
    )
    return bool(judged["verdict"] == "better")


def roles(url: str) -> list[str]:
    """Returns the roles that have a model."""
    return [one["role"] for one in json.loads(fetch(url, "/v1/models"))["models"]]


def champion_drift(url: str) -> dict[str, Any]:
    """Returns the champion's entry in `/v1/drift`."""
    models: list[dict[str, Any]] = json.loads(fetch(url, "/v1/drift"))["models"]
    return next(one for one in models if one["role"] == "champion")


def wait_rows(url: str, n_rows: int) -> list[str]:
    """Waits until all workers have counted the rows; returns what has drifted."""

    def look() -> dict[str, Any] | None:
        drift = champion_drift(url)
        return drift if drift["rows"] >= n_rows else None

    drift = wait(look, "the rows are counted")
    assert drift is not None
    drifted: list[str] = drift["drifted"]
    return drifted


def show_bins(url: str) -> None:
    """Prints the shifted input's bins."""
    feature = next(one for one in champion_drift(url)["features"] if one["feature"] == SHIFTED)
    for one in feature["bins"]:
        now, reference = one["now"] or 0, one["reference"] or 0
        say(f"    {one['bin']:>20} {now:6.1%} {reference:6.1%}  {'#' * round(60 * now)}")


@contextlib.contextmanager
def watching(folder: Path, port: int) -> Iterator[Prometheus | None]:
    """Runs a Prometheus with the rules that ship; yields None if none is installed."""
    program = shutil.which("prometheus")
    if program is None:
        yield None
        return
    folder.mkdir()
    (folder / "rules.yaml").write_text(RULES.read_text().replace("interval: 1m", "interval: 1s"))
    settings = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {"job_name": "model-server", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(settings))  # JSON is YAML, too
    own_port = free_port()
    address = f"127.0.0.1:{own_port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  # our own words
            [
                program,
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/samples",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        prometheus = Prometheus(wait(lambda: is_up(f"http://{address}"), "Prometheus answers"))
        wait(lambda: prometheus.ask("model_feature_bin_total"), "Prometheus has scraped the service")
        yield prometheus
    finally:
        process.terminate()
        process.wait(SECONDS)


def is_up(url: str) -> str:
    """Returns the URL of a Prometheus that answers, else an empty text."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/-/ready", timeout=5):  # noqa: S310  # our own
        return url
    return ""


def drifted_in(prometheus: Prometheus) -> list[str]:
    """Returns the inputs of the champion that have drifted."""
    found = prometheus.ask('model_server:feature_drifted:index1h{kind="input", model_version="1"}')
    return sorted(one.metric["feature"] for one in found)


def verdict_in(prometheus: Prometheus) -> str:
    """Returns the shadow's verdict by accuracy; an empty text if it is not clear yet."""
    found = prometheus.ask('model_challenger_verdict{metric="accuracy"} != 0')
    return found[0].value[1] if found else ""


def wait(claim: Callable[[], T], what: str) -> T:
    """Waits until a claim holds; returns its value.

    Raises:
        SystemExit: it does not in time.
    """
    give_up = time.monotonic() + SECONDS
    while not (value := claim()):
        if time.monotonic() > give_up:
            sys.exit(f"demo_drift.py: not within {SECONDS} s: {what}")
        time.sleep(0.2)
    return value


if __name__ == "__main__":
    sys.exit(main())
