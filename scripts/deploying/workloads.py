"""The workload that creates the pods: its stable image, and when another image is rolled out."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from scripts.deploying.kubectl import Document, Kubectl, last_line
from scripts.lifecycle import LifecycleError

PAUSE_SECONDS = 5
"""Polling interval of a Rollout."""


TIMED_OUT = "timed out waiting"
"""Part of what `kubectl rollout status` prints at its --timeout; any other error is final."""

LOOK_SECONDS = 30
"""Interval at which the pods are checked for the cause of a delay."""

Say = Callable[[str], None]


class Outcome(NamedTuple):
    """The result of a rollout."""

    is_ready: bool
    """All pods have the image."""
    is_well: bool
    """All pods have the image, or the Rollout is paused at a step without errors."""
    said: str


class Workload(Protocol):
    """A Deployment, or the Rollout that took its pods over."""

    def stable_image(self) -> str | None:
        """Returns the image to roll back to; None if there is none yet.

        Raises:
            LifecycleError: the cluster cannot be queried.
        """

    def why_not(self, image: str) -> str:
        """Returns why the image must not be applied now; empty if it may.

        Raises:
            LifecycleError: the cluster cannot be queried.
        """

    def wait(self, seconds: float, say: Say) -> Outcome:
        """Waits until it is ready, or paused at a step; says why pods are not ready."""


def find_workload(kubectl: Kubectl, documents: Sequence[Document], name: str) -> Workload:
    """Returns the workload that creates the pods of a Deployment in the manifests."""
    for document in documents:
        reference = document.get("spec", {}).get("workloadRef") or {}
        if document["kind"] == "Rollout" and (reference.get("kind"), reference.get("name")) == (
            "Deployment",
            name,
        ):
            return Rollout(kubectl, document["metadata"]["name"], Deployment(kubectl, name))
    return Deployment(kubectl, name)


class Deployment:
    """A Deployment that creates its pods itself."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl, self._name = kubectl, name

    def get(self) -> Document | None:
        """Returns it from the cluster; None if there is none."""
        return self._kubectl.get(f"deployment/{self._name}")

    def stable_image(self) -> str | None:
        """See `Workload`: the image of the available pods, even if the Deployment has another one."""
        document = self.get()
        if document is None:
            return None
        status = document.get("status", {})
        if status.get("unavailableReplicas") or status.get("updatedReplicas", 0) < status.get("replicas", 0):
            found = self._kubectl.get("replicasets", f"--selector={_selector_of(document)}")
            owned = [one for one in (found or {}).get("items", []) if _is_owned(one, document)]
            answering = max(owned, key=_n_available, default=None)
            if answering is not None and _n_available(answering):
                return _image_of(answering)
        return _image_of(document)

    def why_not(self, image: str) -> str:  # noqa: ARG002  # any may be applied
        """See `Workload`."""
        return ""

    def wait(self, seconds: float, say: Say) -> Outcome:
        """See `Workload`."""
        end, said = time.monotonic() + seconds, ""
        while True:
            left = max(0, end - time.monotonic())
            waited = self._kubectl(
                "rollout", "status", f"deployment/{self._name}", f"--timeout={min(left, LOOK_SECONDS):g}s"
            )
            if not waited.returncode:
                return Outcome(True, True, "its pods are ready")
            trouble = last_line(waited.stderr) or "it is not ready"
            keeps = self.what_keeps_pods()
            if TIMED_OUT not in trouble or left <= LOOK_SECONDS:
                return Outcome(False, False, f"{trouble}; {keeps}" if keeps else trouble)
            if keeps and keeps != said:
                say(keeps)
                said = keeps

    def what_keeps_pods(self) -> str:
        """Returns why pods are not ready, as far as the cluster knows."""
        try:
            document = self.get()
            found = self._kubectl.get("pods", f"--selector={_selector_of(document)}") if document else None
        except LifecycleError as error:
            return str(error)
        reasons = Counter(filter(None, map(_what_keeps, (found or {}).get("items", []))))
        return "; ".join(f"{n} pod{'s' if n > 1 else ''}: {reason}" for reason, n in reasons.items())


class Rollout:
    """A Rollout that has taken the pods over from a Deployment, which then has none and is ready at once.

    Source: `kubectl argo rollouts status`, for what the fields of the status mean.
    """

    def __init__(self, kubectl: Kubectl, name: str, deployment: Deployment) -> None:
        self._kubectl, self._name, self._deployment = kubectl, name, deployment

    def stable_image(self) -> str | None:
        """See `Workload`: the image of the stable pods, even if the Deployment has another one."""
        return self._stable_image(self._get())

    def why_not(self, image: str) -> str:
        """See `Workload`: during a canary only the stable image may be applied, which ends it."""
        document = self._get()
        if document is None or not _stable_hash(document):
            return ""
        status = document["status"]
        stable = self._stable_image(document)
        if image == stable:
            return ""
        if status.get("abort"):
            trouble = "has an aborted canary"
        elif status.get("currentPodHash") != _stable_hash(document):
            trouble = "is in the middle of a canary"
        elif not self._is_observed(document):
            trouble = "has not observed its last change yet (is its controller running?)"
        else:
            return ""
        return f"the Rollout {self._name} {trouble}; only its stable image may be applied, {stable}"

    def wait(self, seconds: float, say: Say) -> Outcome:
        """See `Workload`."""
        end, known = time.monotonic() + seconds, "its state is unknown"
        look, keeps = time.monotonic() + LOOK_SECONDS, ""
        while True:
            try:
                document = self._get()
                if document is not None and self._is_observed(document):
                    outcome = _outcome_of(document)
                    if outcome is not None:
                        return outcome
                    status = document["status"]
                    known = ", ".join(filter(None, [status.get("phase"), status.get("message")])) or known
            except LifecycleError as error:
                # A cluster that is unreachable for a moment continues the rollout.
                known = str(error)
            if time.monotonic() >= look:
                look += LOOK_SECONDS
                before, keeps = keeps, self._deployment.what_keeps_pods()
                if keeps and keeps != before:
                    say(keeps)
            if time.monotonic() >= end:
                said = f"the Rollout {self._name} is not ready within {seconds:g} s: {known}"
                return Outcome(False, False, said)
            time.sleep(min(PAUSE_SECONDS, max(0, end - time.monotonic())))

    def _get(self) -> Document | None:
        return self._kubectl.get(f"rollouts.argoproj.io/{self._name}")

    def _stable_image(self, document: Document | None) -> str | None:
        """Returns the image of the stable ReplicaSet; before there is one, of the Deployment."""
        if document is None or not (stable := _stable_hash(document)):
            return self._deployment.stable_image()
        found = self._kubectl.get("replicasets", f"--selector=rollouts-pod-template-hash={stable}")
        items = (found or {}).get("items", [])
        if not items:
            raise LifecycleError(f"the Rollout {self._name} has no ReplicaSet {stable}, its stable one")
        return _image_of(items[0])

    def _is_observed(self, document: Document) -> bool:
        """True once the controller has observed its last change, and the Deployment's."""
        status, deployment = document.get("status", {}), self._deployment.get()
        return deployment is not None and (
            str(status.get("observedGeneration")),
            str(status.get("workloadObservedGeneration")),
        ) == (str(document["metadata"]["generation"]), str(deployment["metadata"]["generation"]))


def _outcome_of(document: Document) -> Outcome | None:
    """Returns the result of a Rollout; None while it is in progress."""
    name, status = document["metadata"]["name"], document["status"]
    phase, message = status.get("phase"), status.get("message") or "no reason given"
    if status.get("abort"):
        return Outcome(False, False, f"the Rollout {name} was aborted: {message}")
    if phase == "Degraded":
        return Outcome(False, False, f"the Rollout {name} is degraded: {message}")
    if document["spec"].get("paused"):
        return Outcome(False, False, f"the Rollout {name} was paused by hand")
    if phase == "Healthy" and status.get("currentPodHash") == _stable_hash(document):
        return Outcome(True, True, "its pods are ready")
    if phase == "Paused":
        steps: list[dict[str, Any]] = document["spec"]["strategy"]["canary"].get("steps", [])
        at = status.get("currentStepIndex", 0)
        pause = steps[at].get("pause") if at < len(steps) else None
        follows = (
            "it continues by itself"
            if (pause or {}).get("duration") is not None
            else f"next: .venv/bin/python scripts/canary.py rollout {name} --namespace {document['metadata']['namespace']} "
            "--prometheus URL"
        )
        said = f"the Rollout {name} is paused at step {at + 1} of {len(steps)} with the new image; {follows}"
        return Outcome(False, True, said)
    return None


def _stable_hash(document: Document) -> str:
    """Returns the hash of the stable pods; empty if there are none yet."""
    return str(document.get("status", {}).get("stableRS") or "")


def _selector_of(document: Document) -> str:
    """Returns the label selector of a Deployment's pods."""
    labels = document["spec"].get("selector", {}).get("matchLabels", {})
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _is_owned(document: Document, by: Document) -> bool:
    uid = by["metadata"].get("uid")
    return any(owner["uid"] == uid for owner in document["metadata"].get("ownerReferences", []))


def _n_available(replica_set: Document) -> int:
    return int(replica_set.get("status", {}).get("availableReplicas") or 0)


def _what_keeps(pod: Document) -> str:
    """Returns why a pod is not ready; empty if it is."""
    status = pod.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message') or scheduled.get('reason')}"
    for container in status.get("containerStatuses", []):
        state = container.get("state", {})
        stopped = state.get("waiting") or state.get("terminated")
        if stopped:
            return ": ".join(filter(None, [stopped.get("reason"), stopped.get("message")]))
    return "running, but not ready; the reason is in its log and at /readyz"


def _image_of(document: Document) -> str:
    """Returns the image of the pods of a Deployment or ReplicaSet."""
    return str(document["spec"]["template"]["spec"]["containers"][0]["image"])
