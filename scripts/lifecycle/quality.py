"""Waits until services know whether a version is better than the one in production: `/v1/quality`."""

import time
import urllib.error
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.endpoints import Endpoint, endpoints_of_all
from scripts.lifecycle.services import fetch, look_at_all
from scripts.lifecycle.watch import N_SILENT_LOOKS, RolledBack
from serving.monitoring.quality.comparison import MIN_LABELS
from serving.monitoring.quality.judgement import Judgement, Quality, judge

LOOK_SECONDS = 10.0
"""Polling interval."""

GROWTH = 2
"""Progress is printed when there are this many times the labels as when it was printed last."""

ROLES = frozenset({"challenger", "shadow"})

SAME_STORE_RATIO = 0.5
"""Services of one store evaluate it at different moments, so the labels of one may lag. Fewer than this share of another's
come from another store."""


class Question(NamedTuple):
    """Whether one version is better than another."""

    champion: str
    version: str
    metric: str
    confidence: float
    max_wait_seconds: float


def check_feedback(urls: Sequence[str]) -> list[Quality]:
    """Returns what the services know of their versions' quality; those that do not answer are left out.

    Raises:
        LifecycleError: one gets no feedback.
    """

    def ask(endpoint: Endpoint) -> Quality | None:
        try:
            return msgspec.json.decode(fetch(endpoint.url, "/v1/quality", endpoint.address), type=Quality)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                return None
            raise LifecycleError(
                f"{endpoint} (--url) gets no feedback, so nothing is known of its versions' quality; start it with "
                "SERVING_LOG_PREDICTIONS and SERVING_FEEDBACK_STORE, and send truths to POST /v1/feedback"
            ) from None
        except (OSError, msgspec.MsgspecError):
            return None

    endpoints = endpoints_of_all(urls)
    with ThreadPoolExecutor(max(1, len(endpoints))) as pool:
        return [one for one in pool.map(ask, endpoints) if one is not None]


def find_roles(urls: Sequence[str], version: str) -> frozenset[str]:
    """Returns the roles in which a version answers beside the champion; both if no service answers at all.

    Raises:
        LifecycleError: it is neither challenger nor shadow of any service; says what to do.
    """
    seen = [one for one in look_at_all(urls).values() if not one.trouble]
    found = ROLES.intersection(
        role for one in seen for role, number in one.versions.items() if number == version
    )
    if found or not seen:
        return found or ROLES
    why = "".join(sorted({f" ({reason})" for one in seen for reason in one.held_back.values()}))
    raise LifecycleError(
        f"version {version} is neither challenger nor shadow of the services{why}; make it the shadow "
        f"(scripts/shadow.py {version}), or the challenger (add --percent 10)"
    )


def wait_until_better(
    question: Question, urls: Sequence[str], say: Callable[[str], None], check: Callable[[], object]
) -> Judgement:
    """Waits for the verdict that a version is better; returns it.

    All services are asked, at every address. Those with one store know the same labels, so the comparison with the most
    counts. Those with a store each know different labels; their moments are not added up, because nothing tells these
    services from those with one store.

    Args:
        question: what to wait for.
        urls: of the services.
        say: prints a sentence.
        check: called at each look; raises an error to end the wait.

    Raises:
        RolledBack: the version is worse, is no longer compared, or `max_wait_seconds` are over.
        LifecycleError: the services do not have this metric, or get no feedback.
    """
    give_up = time.monotonic() + question.max_wait_seconds
    challenger, champion = question.version, question.champion
    judged: Judgement | None = None
    n_said = n_lost = 0
    has_warned, roles = False, ROLES
    say(f"waiting until version {challenger} is better than version {champion} by {question.metric}")
    while True:
        check()
        try:
            roles, n_lost = find_roles(urls, challenger), 0
        except LifecycleError as error:  # once, it may be a worker that restarts
            n_lost += 1
            if n_lost >= N_SILENT_LOOKS:
                raise RolledBack(str(error)) from None
        found = [one for quality in check_feedback(urls) for one in _judge(quality, question, roles)]
        if found:
            judged = max(found, key=lambda one: one.measured.n_labels)
            fewest, most = min(one.measured.n_labels for one in found), judged.measured.n_labels
            if fewest < SAME_STORE_RATIO * most and most >= MIN_LABELS and not has_warned:
                has_warned = True
                say(
                    f"services know {fewest:,} to {most:,} labels, and the verdict uses the most; if that lasts, each has "
                    "a store of its own: set SERVING_FEEDBACK_STORE=postgresql://…, one for all"
                )
            if judged.verdict.outcome == "better":
                return judged
            if judged.verdict.outcome == "worse":
                raise RolledBack(f"version {challenger} is worse: {judged}")
            if most >= max(GROWTH * n_said, MIN_LABELS):
                n_said = most
                say(f"not yet clear: {judged}; {judged.missing}")
        if time.monotonic() >= give_up:
            known = f"{judged}; {judged.missing}" if judged else "the services have not compared them yet"
            raise RolledBack(f"not yet clear after {question.max_wait_seconds:g} s (--max-wait): {known}")
        time.sleep(min(LOOK_SECONDS, max(0, give_up - time.monotonic())))


def _judge(quality: Quality, question: Question, roles: Collection[str]) -> list[Judgement]:
    found = [one for one in quality.of(question.champion, question.version) if one.role in roles]
    for one in found:
        if question.metric not in one.metrics:
            raise LifecycleError(
                f"the services compare versions by {', '.join(one.metrics)}, not by {question.metric} (--when-better)"
            )
    return [judge(one, question.metric, question.confidence) for one in found]
