"""What makes the pods: which image is stable in it, and when it has brought another one to its end."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from scripts.deploying.kubectl import Document, Kubectl, last_line
from scripts.lifecycle import LifecycleError

PAUSE_SECONDS = 5
"""Between two looks at a Rollout."""


TIMED_OUT = "timed out waiting"
"""In what `kubectl rollout status` says at its --timeout; everything else is final."""

LOOK_SECONDS = 30
"""After which the pods are asked what keeps them, and between two such looks."""

Say = Callable[[str], None]


class Outcome(NamedTuple):
    """How it went."""

    is_ready: bool
    """All pods have the image."""
    is_well: bool
    """They have, or it stands at a step and nothing is wrong."""
    said: str


class Workload(Protocol):
    """A Deployment, or the Rollout that took its pods over."""

    def stable_image(self) -> str | None:
        """Returns the image to go back to; None where there is none yet.

        Raises:
            LifecycleError: the cluster cannot be asked.
        """

    def why_not(self, image: str) -> str:
        """Returns why the image must not be applied now; nothing where it may.

        Raises:
            LifecycleError: the cluster cannot be asked.
        """

    def wait(self, seconds: float, say: Say) -> Outcome:
        """Waits until it is ready, or stands at a step; says why pods are not ready."""


def find_workload(kubectl: Kubectl, documents: Sequence[Document], name: str) -> Workload:
    """Returns what makes the pods of a Deployment of the manifests."""
    for document in documents:
        reference = document.get("spec", {}).get("workloadRef") or {}
        if document["kind"] == "Rollout" and (reference.get("kind"), reference.get("name")) == (
            "Deployment",
            name,
        ):
            return Rollout(kubectl, document["metadata"]["name"], Deployment(kubectl, name))
    return Deployment(kubectl, name)


class Deployment:
    """Makes its pods itself."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl, self._name = kubectl, name

    def get(self) -> Document | None:
        """Returns it as the cluster has it; None where it has none."""
        return self._kubectl.get(f"deployment/{self._name}")

    def stable_image(self) -> str | None:
        """See `Workload`: that of the pods that answer, whatever the Deployment asks for."""
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
        """Returns why pods are not ready, as far as the cluster tells."""
        try:
            document = self.get()
            found = self._kubectl.get("pods", f"--selector={_selector_of(document)}") if document else None
        except LifecycleError as error:
            return str(error)
        reasons = Counter(filter(None, map(_what_keeps, (found or {}).get("items", []))))
        return "; ".join(f"{n} pod{'s' if n > 1 else ''}: {reason}" for reason, n in reasons.items())


class Rollout:
    """Has taken the pods over from a Deployment, which has none then and is ready at once.

    Source: `kubectl argo rollouts status`, for what the fields of the status mean.
    """

    def __init__(self, kubectl: Kubectl, name: str, deployment: Deployment) -> None:
        self._kubectl, self._name, self._deployment = kubectl, name, deployment

    def stable_image(self) -> str | None:
        """See `Workload`: that of the stable pods, whatever the Deployment asks for."""
        return self._stable_image(self._get())

    def why_not(self, image: str) -> str:
        """See `Workload`: where a canary is not at its end, only the stable image may be applied, which ends it."""
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
            trouble = "has not seen the last change yet (does its controller run?)"
        else:
            return ""
        return f"the Rollout {self._name} {trouble}; the one image that may be applied is the stable one, {stable}"

    def wait(self, seconds: float, say: Say) -> Outcome:
        """See `Workload`."""
        end, known = time.monotonic() + seconds, "nothing is known of it"
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
                # A cluster that is silent for a moment has not given up the pods.
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
            raise LifecycleError(
                f"the Rollout {self._name} has no ReplicaSet {stable}, which it calls stable"
            )
        return _image_of(items[0])

    def _is_observed(self, document: Document) -> bool:
        """True once the controller has seen the last change of it, and of the Deployment."""
        status, deployment = document.get("status", {}), self._deployment.get()
        return deployment is not None and (
            str(status.get("observedGeneration")),
            str(status.get("workloadObservedGeneration")),
        ) == (str(document["metadata"]["generation"]), str(deployment["metadata"]["generation"]))


def _outcome_of(document: Document) -> Outcome | None:
    """Returns how a Rollout is; None where it is on its way."""
    name, status = document["metadata"]["name"], document["status"]
    phase, message = status.get("phase"), status.get("message") or "nothing says why"
    if status.get("abort"):
        return Outcome(False, False, f"the Rollout {name} was aborted: {message}")
    if phase == "Degraded":
        return Outcome(False, False, f"the Rollout {name} is degraded: {message}")
    if document["spec"].get("paused"):
        return Outcome(False, False, f"the Rollout {name} was paused by somebody")
    if phase == "Healthy" and status.get("currentPodHash") == _stable_hash(document):
        return Outcome(True, True, "its pods are ready")
    if phase == "Paused":
        steps: list[dict[str, Any]] = document["spec"]["strategy"]["canary"].get("steps", [])
        at = status.get("currentStepIndex", 0)
        pause = steps[at].get("pause") if at < len(steps) else None
        follows = (
            "it goes on by itself"
            if (pause or {}).get("duration") is not None
            else f"next: .venv/bin/python scripts/canary.py rollout {name} --namespace {document['metadata']['namespace']} "
            "--prometheus URL"
        )
        said = f"the Rollout {name} stands at step {at + 1} of {len(steps)} with the new image; {follows}"
        return Outcome(False, True, said)
    return None


def _stable_hash(document: Document) -> str:
    """Returns the hash of the stable pods; nothing before there are any."""
    return str(document.get("status", {}).get("stableRS") or "")


def _selector_of(document: Document) -> str:
    """Returns how kubectl is told the pods of a Deployment."""
    labels = document["spec"].get("selector", {}).get("matchLabels", {})
    return ",".join(f"{name}={value}" for name, value in labels.items())


def _is_owned(document: Document, by: Document) -> bool:
    uid = by["metadata"].get("uid")
    return any(owner["uid"] == uid for owner in document["metadata"].get("ownerReferences", []))


def _n_available(replica_set: Document) -> int:
    return int(replica_set.get("status", {}).get("availableReplicas") or 0)


def _what_keeps(pod: Document) -> str:
    """Returns why a pod is not ready; nothing if it is."""
    status = pod.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", [])}
    if conditions.get("Ready", {}).get("status") == "True":
        return ""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"on no node: {scheduled.get('message') or scheduled.get('reason')}"
    for container in status.get("containerStatuses", []):
        state = container.get("state", {})
        stopped = state.get("waiting") or state.get("terminated")
        if stopped:
            return ": ".join(filter(None, [stopped.get("reason"), stopped.get("message")]))
    return "runs and is not ready; kubectl logs has its last line, and /readyz the reason"


def _image_of(document: Document) -> str:
    """Returns what the pods of a Deployment or ReplicaSet run."""
    return str(document["spec"]["template"]["spec"]["containers"][0]["image"])
