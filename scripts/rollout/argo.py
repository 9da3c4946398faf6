"""A Rollout of Argo Rollouts, which has its own steps and pauses at each until it is promoted."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.rollout.cluster import Cluster, Document, Kind
from scripts.rollout.target import NotReached, Sides, change, wait_until

START_SECONDS = 60
"""Timeout for the controller to observe a change."""

STEP_SECONDS = 1200
"""Source: progressDeadlineSeconds in k8s/components/canary/rollout.yaml."""

ABORT_SECONDS = 60
"""Timeout for waiting on an abort, which continues afterwards."""

KIND = Kind("Rollout", "argoproj.io", "v1alpha1", "rollouts")
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments")


class Pause(NamedTuple):
    """A step at which the Rollout pauses."""

    step: int
    """Its index, from 0."""
    percent: int
    """The canary's share there."""


class Rollout:
    """Its progress is in its status, so the next run resumes a killed one.

    Source: `kubectl argo rollouts promote` and `abort`, for the meaning of the status fields.
    """

    is_present = False

    def __init__(self, cluster: Cluster, name: str, canary: str | None) -> None:
        """Takes its name.

        Raises:
            LifecycleError: a canary is named; a Rollout has only one.
        """
        if canary is not None:
            raise LifecycleError("a Rollout creates its own canary: leave --canary out")
        self._cluster = cluster
        self._name = name
        self._steps: list[dict[str, Any]] = []
        self._pauses: tuple[Pause, ...] = ()
        self._hashes = ("", "")
        self._at = -1
        """The step at which it was left."""
        self.is_begun = False
        self.title = f"{KIND.title} {cluster.namespace}/{name}"

    def open(self, steps: Sequence[int] | None) -> Sequence[int] | None:
        """Reads its progress; see `Target`."""
        if steps is not None:
            raise LifecycleError(f"{self.title} has its own steps: leave --steps out")
        try:
            document = wait_until(
                self._look_observed,
                START_SECONDS,
                lambda: f"{self.title}: the controller has not seen its change",
            )
        except NotReached as error:
            # Nothing has been moved: exit code 2.
            raise LifecycleError(str(error)) from None
        self._steps = document["spec"].get("strategy", {}).get("canary", {}).get("steps", [])
        self._pauses = self._find_pauses()
        status = document["status"]
        if status.get("abort"):
            raise LifecycleError(
                f"{self.title} was aborted, and waits for a change or `kubectl argo rollouts retry rollout {self._name}`"
            )
        self._hashes = (status.get("stableRS", ""), status.get("currentPodHash", ""))
        if not self._hashes[0]:
            raise LifecycleError(f"{self.title} has no stable pods yet: its first rollout skips the steps")
        if self._hashes[0] == self._hashes[1]:
            return None
        self._at = status.get("currentStepIndex", 0)
        self.is_begun = self._at > 0
        return [pause.percent for pause in self._pauses if pause.step >= self._at]

    @property
    def plan(self) -> Sequence[str]:
        """See `Target`."""
        return [
            f"rolls back to the pods {self._hashes[0]}",
            "without a traffic router a step is a share of the pods, at least one pod",
        ]

    @property
    def sides(self) -> Sides:
        """See `Target`."""
        here = f'namespace="{self._cluster.namespace}"'
        stable, canary = (f'{here},rollouts_pod_template_hash="{each}"' for each in self._hashes)
        return Sides(stable, canary)

    def go_to(self, percent: int) -> str:
        """Promotes it to the step's pause and waits until it gets there; see `Target`."""
        (pause,) = (pause for pause in self._pauses if pause.percent == percent)
        self._go_on_from_pause(pause.step)

        def look() -> Document | None:
            document = self._cluster.get(KIND, self._name)
            self._check(document)
            self._check_not_beyond(document, pause.step)
            is_there = document["status"].get("currentStepIndex") == pause.step
            return document if is_there and _is_held(document) else None

        document = wait_until(look, STEP_SECONDS, lambda: f"{self.title} has not reached {percent} %")
        self._at = pause.step
        status = document["status"]
        pods = f"{status.get('updatedReplicas', 0)} of {status.get('replicas', 0)} pods"
        return f"the canary {self._hashes[1]} is at {percent} %: {pods} are new"

    def check_ours(self) -> None:
        """See `Target`."""
        document = self._cluster.get(KIND, self._name)
        self._check(document)
        self._check_not_beyond(document, self._at)
        index = document["status"].get("currentStepIndex")
        if index != self._at:
            raise Overtaken(f"{self.title}: somebody else has taken it to step {index}; left unchanged")

    def finish(self) -> str:
        """Promotes it to the end and waits until the new pods are the stable ones; see `Target`."""
        self._go_on_from_pause(len(self._steps))

        def look() -> bool | None:
            document = self._cluster.get(KIND, self._name)
            self._check(document)
            status = document.get("status") or {}
            is_stable = status.get("stableRS") == self._hashes[1]
            return True if is_stable and status.get("phase") == "Healthy" else None

        wait_until(look, STEP_SECONDS, lambda: f"{self.title} has not become healthy")
        return f"{self.title}: the new pods are the stable ones"

    def put_back(self, *, is_dry: bool = False) -> str:
        """Aborts it: all traffic goes to the stable pods; see `Target`."""

        def attempt() -> str:
            document = self._cluster.get(KIND, self._name)
            status = document.get("status") or {}
            stable = str(status.get("stableRS") or "")
            if not stable or stable == status.get("currentPodHash"):
                return ""
            if not is_dry and not status.get("abort"):
                self._cluster.patch(KIND, document, {"status": {"abort": True}}, "status")
            return stable

        stable = change(attempt)
        if not stable:
            return ""
        if is_dry:
            return f"it would be aborted, and all traffic would go to the stable pods {stable}"
        left = self._wait_aborted()
        return (
            f"aborted, {left or 'all traffic goes to'} the stable pods {stable}; put the previous image back into "
            "the manifests, or the next change rolls out the new one again"
        )

    def _wait_aborted(self) -> str:
        """Waits until the canary gets no traffic; on a timeout, returns how the message describes that."""
        left = 0

        def look() -> bool | None:
            nonlocal left
            status = self._cluster.get(KIND, self._name).get("status") or {}
            weights = (status.get("canary") or {}).get("weights") or {}
            left = status.get("updatedReplicas", 0)
            # With a traffic router the canary's pods stay for a while without traffic.
            has_none = weights["canary"].get("weight") == 0 if weights.get("canary") else not left
            return True if has_none and status.get("phase") == "Degraded" else None

        try:
            wait_until(look, ABORT_SECONDS, lambda: "")
        except NotReached:
            return f"{left} new pods still answer, and traffic is moving to"
        return ""

    @property
    def by_hand(self) -> str:
        """See `Target`."""
        return f"kubectl argo rollouts abort {self._name} -n {self._cluster.namespace}"

    def _look_observed(self) -> Document | None:
        """Returns it once its controller has observed the last change to it and to the Deployment it refers to."""
        document = self._cluster.get(KIND, self._name)
        status = document.get("status", {})
        if str(status.get("observedGeneration", "")) != str(document["metadata"]["generation"]):
            return None
        reference = document["spec"].get("workloadRef")
        if reference is not None and reference.get("kind") == "Deployment":
            deployment = self._cluster.get(DEPLOYMENT, reference["name"])
            seen = str(status.get("workloadObservedGeneration", ""))
            if seen != str(deployment["metadata"]["generation"]):
                return None
        return document

    def _find_pauses(self) -> tuple[Pause, ...]:
        pauses, percent = [], 0
        for index, step in enumerate(self._steps):
            if "setWeight" in step:
                percent = step["setWeight"]
            elif "pause" in step:
                if (step["pause"] or {}).get("duration") is not None:
                    raise LifecycleError(
                        f"{self.title} continues by itself after step {index}; canary.py needs pauses without "
                        "a duration (k8s/components/canary-steps)"
                    )
                pauses.append(Pause(index, percent))
            else:
                raise LifecycleError(
                    f"{self.title}: its step {index} must be setWeight or pause, not {', '.join(step)}"
                )
        percents = [pause.percent for pause in pauses]
        if not percents or percents != sorted(set(percents)) or percents[0] <= 0:
            raise LifecycleError(
                f"{self.title} needs rising steps, each with a pause (k8s/components/canary-steps)"
            )
        return tuple(pauses)

    def _go_on_from_pause(self, index: int) -> None:
        """Ends the pause before a step, if it is in one."""

        def attempt() -> None:
            document = self._cluster.get(KIND, self._name)
            self._check(document)
            if document["status"].get("currentStepIndex", 0) < index and _is_held(document):
                self._cluster.patch(KIND, document, {"status": {"pauseConditions": None}}, "status")

        change(attempt)

    def _check_not_beyond(self, document: Document, step: int) -> None:
        status = document["status"]
        index = status.get("currentStepIndex", 0)
        if index > step or status.get("stableRS") == self._hashes[1]:
            raise Overtaken(f"{self.title}: somebody else has taken it to step {index}; left unchanged")

    def _check(self, document: Document) -> None:
        status = document.setdefault("status", {})
        if status.get("abort"):
            # Until the controller has observed the abort, the message is about something else.
            why = status.get("message") if status.get("phase") == "Degraded" else None
            raise NotReached(f"{self.title} was aborted: {why or 'by hand, or by its analysis'}")
        if status.get("currentPodHash") != self._hashes[1]:
            raise Overtaken(f"{self.title}: somebody else has changed its pods; left unchanged")
        if document["spec"].get("paused"):
            raise Overtaken(f"{self.title}: somebody else has paused it; left unchanged")
        if status.get("phase") == "Degraded":
            raise NotReached(f"{self.title} is degraded: {status.get('message') or 'no reason given'}")


def _is_held(document: Document) -> bool:
    """True if it pauses at a step until it is promoted."""
    conditions = document.get("status", {}).get("pauseConditions") or []
    return any(condition.get("reason") == "CanaryPauseStep" for condition in conditions)
