"""Checks that a deployed service behaves as documented; stops at the first claim that fails.

    .venv/bin/python scripts/smoke_test.py http://localhost:3000
    .venv/bin/python scripts/smoke_test.py http://localhost:3000 --name churn --version 7 --max-latency-ms 50
    SMOKE_TEST_HEADER='Authorization: Bearer …' .venv/bin/python scripts/smoke_test.py https://model.example --v1-only --example rows.json

It requests some 40 predictions of the model's own example. It waits up to --timeout-seconds in total for an answer, for
readiness and for --version. Redirects are not followed; headers are never printed. For your own certificate authority
set SSL_CERT_FILE.
Exit code 0 if all claims hold, 1 if one fails, 2 with one line on stderr if there is no service to check, 130 after
Ctrl-C.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle.cli import DONE, FAILED, OneLineParser, run, teller  # noqa: E402  # needs the line above
from scripts.lifecycle.services import http_url  # noqa: E402  # the same
from scripts.smoke import (  # noqa: E402  # the same
    Broken,
    NoAnswer,
    NotApplicable,
    behaviour_checks,
    prediction_checks,
    state_checks,
)
from scripts.smoke.run import Example, Expected, SmokeRun  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

HEADER_VARIABLE = "SMOKE_TEST_HEADER"

Claim = Callable[[SmokeRun], str]

CLAIMS: dict[str, Claim] = {
    "live": state_checks.live,
    "ready": state_checks.ready,
    "model": state_checks.model,
    "registry": state_checks.registry,
    "example": prediction_checks.example,
    "version": prediction_checks.version,
    "probabilities": prediction_checks.probabilities,
    "rows": prediction_checks.rows,
    "batch, JSON": prediction_checks.batch_json,
    "batch, .npy": prediction_checks.batch_npy,
    "batch, Arrow": prediction_checks.batch_arrow,
    "errors": behaviour_checks.errors,
    "metrics": behaviour_checks.counted,
    "latency": behaviour_checks.latency,
}
"""In the order of the run: each needs the results of those before it."""

WIDTH = max(map(len, CLAIMS))


def parse_arguments(arguments: Sequence[str] | None, _: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("url", type=plain_url, help="URL of the service, http://host:port")
    parser.add_argument("--name", help="expected registered model")
    parser.add_argument("--version", help="expected version")
    parser.add_argument(
        "--timeout-seconds",
        type=positive,
        default=60,
        metavar="SECONDS",
        help="total time to wait (%(default)g)",
    )
    parser.add_argument(
        "--max-latency-ms",
        type=positive,
        metavar="MS",
        help="maximum latency of one row, median of 20",
    )
    parser.add_argument(
        "--header",
        action="append",
        type=header,
        default=[],
        metavar="'NAME: VALUE'",
        help=f"header of each request, such as a login; {HEADER_VARIABLE} keeps it from other users",
    )
    parser.add_argument(
        "--example",
        type=example,
        metavar="FILE",
        help='send this body, {"instances": […]}, instead of the model\'s own example',
    )
    parser.add_argument(
        "--v1-only",
        action="store_true",
        help="the URL serves only /v1, as an ingress does: no probes, no metrics; "
        "needs --example if /docs.json is closed, too",
    )
    parser.add_argument("--no-metrics", action="store_true", help="skip /metrics")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    options = parser.parse_args(arguments)
    if text := os.environ.get(HEADER_VARIABLE):
        try:
            options.header.insert(0, header(text))
        except argparse.ArgumentTypeError as error:
            parser.error(f"{HEADER_VARIABLE}: {error}")
    return options


def plain_url(text: str) -> str:
    """Returns the URL of a service, without a login in it.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    if "@" in text:
        raise argparse.ArgumentTypeError("a login in the URL is visible to everybody; use --header")
    url = http_url(text)
    if not url.isascii() or any(character in url for character in " ?#") or not url.isprintable():
        raise argparse.ArgumentTypeError(f"{text!r} has characters that a server's URL cannot have")
    return url


def positive(text: str) -> float:
    """Returns a number that is not negative.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return number


def example(text: str) -> Example:
    """Returns the rows of a file.

    Raises:
        argparse.ArgumentTypeError: it has none.
    """
    file = Path(text)
    try:
        body = json.loads(file.read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{file} cannot be read: {error.strerror}") from None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{file} is not JSON") from None
    rows = body.get("instances") if isinstance(body, dict) and len(body) == 1 else None
    if not isinstance(rows, list) or not rows:
        raise argparse.ArgumentTypeError(f'{file} is not of the form {{"instances": [row, …]}}')
    return Example(rows, file.name)


def header(text: str) -> tuple[str, str]:
    """Returns name and value of a header; errors do not repeat it.

    Raises:
        argparse.ArgumentTypeError: it is not one.
    """
    name, colon, value = (part.strip() for part in text.partition(":"))
    is_name = bool(name) and name.isascii() and name.replace("-", "").isalnum()
    if not colon or not is_name or not value or not value.isascii() or not value.isprintable():
        raise argparse.ArgumentTypeError("it is not of the form 'Name: value'")
    return name, value


def smoke_test(options: argparse.Namespace, _: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Runs the claims; returns exit code and facts.

    Raises:
        LifecycleError: there is no service to check.
    """
    expected = Expected(**{name: getattr(options, name) for name in Expected._fields})
    # A server may echo the headers.
    secrets = [part for _, value in options.header for part in (value, *value.split())]
    say = teller(options)
    smoke_run = SmokeRun(options.url, dict(options.header), expected, say)
    rows: list[dict[str, Any]] = []
    is_met = True
    for name, claim in CLAIMS.items():
        started = time.monotonic()
        outcome, detail = try_claim(claim, smoke_run) if is_met else ("not tried", "")
        detail = to_line(detail, secrets)
        is_met = is_met and outcome != "FAILED"
        rows.append(
            {
                "claim": name,
                "outcome": outcome,
                "detail": detail,
                "seconds": round(time.monotonic() - started, 3),
            }
        )
        say(f"{name:<{WIDTH}}  {outcome:<9}  {detail}".rstrip())
    facts = {"url": options.url, "is_met": is_met}
    if "champion" in smoke_run.models:
        facts |= {key: smoke_run.champion.get(key) for key in ("name", "version")}
    return DONE if is_met else FAILED, facts | {"claims": rows}, []


def to_line(text: str, secrets: Sequence[str]) -> str:
    """Returns a server's text as one short line, without secrets."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return "".join(character for character in " ".join(text.split()) if character.isprintable())[:300]


def try_claim(claim: Claim, smoke_run: SmokeRun) -> tuple[str, str]:
    """Returns the outcome of a claim, `ok`, `FAILED` or `–`, and why.

    Raises:
        LifecycleError: there is no service to check.
    """
    try:
        return "ok", claim(smoke_run)
    except NotApplicable as why:
        return "–", str(why)
    except (Broken, NoAnswer) as why:
        return "FAILED", str(why)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        return "FAILED", f"the answer is not of the documented shape ({type(error).__name__}: {error})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("smoke_test.py", smoke_test, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
