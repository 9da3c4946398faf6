"""Two plain Deployments behind one Service: their pod counts are the weights."""

import math
from collections.abc import Sequence

import msgspec

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.rollout.annotation import Note, annotate, check_run, new_run, read_note
from scripts.rollout.cluster import Cluster, Document, Kind
from scripts.rollout.target import NotReached, Sides, change, wait_until

READY_SECONDS = 1200
"""Source: progressDeadlineSeconds in k8s/base/deployment.yaml."""

MAX_PERCENT = 75
"""Maximum before the last step: 75 % needs three canary pods for each stable one."""

KIND = Kind("Deployment", "apps", "v1", "deployments")
AUTOSCALER = Kind("HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers")

POD = "[0-9a-z]+-[0-9a-z]+"
"""Suffix of a Deployment's pods after its name."""


class Deployments:
    """Gives the canary as many pods as its share needs, besides the stable ones.

    The stable Deployment keeps its pods, which its autoscaler controls; only at 100 % it is scaled to 0, which turns the
    autoscaler off. So there are never fewer pods than before.
    """

    is_present = False

    def __init__(self, cluster: Cluster, name: str, canary: str | None) -> None:
        """Takes the names; the canary's defaults to NAME-canary."""
        self._cluster = cluster
        self._stable = name
        self._canary = canary or f"{name}-canary"
        self._run = new_run()
        self._note: Note | None = None
        self._has_moved = False
        self._steps: Sequence[int] = ()
        self._n_canary = 0
        self.is_begun = False
        self.title = f"{KIND.title} {cluster.namespace}/{name}"

    def open(self, steps: Sequence[int] | None) -> Sequence[int] | None:
        """Reads its progress; see `Target`."""
        assert steps is not None
        stable = self._cluster.get(KIND, self._stable)
        note = read_note(stable)
        if note is not None and note.is_done and _replicas(stable):
            note = None  # The stable pods were brought back by hand.
        if note is not None and note.names[1] != self._canary:
            raise LifecycleError(
                f"{self.title}: an earlier run has left {note.names[1]} at {note.percent} %; "
                f"--canary {note.names[1]} --restore rolls it back"
            )
        canary = self._cluster.get(KIND, self._canary)
        self._check_pods(stable, canary)
        if note is None and not _replicas(stable):
            raise LifecycleError(f"{self.title} has no pods, and there is no record of a canary run")
        self.is_begun = note is not None
        names = (self._stable, self._canary)
        # While there is a note, the counts before come from it: pods and note do not change atomically.
        self._note = note or Note(self._run, names, (_replicas(stable), _replicas(canary)), -1)
        if self._note.is_done:
            return None
        self._steps = [step for step in steps if step >= self._note.percent]
        if any(MAX_PERCENT < step < 100 for step in self._steps):
            raise LifecycleError(f"{self.title}: steps before the last are at most {MAX_PERCENT} % (--steps)")
        return self._steps

    @property
    def plan(self) -> Sequence[str]:
        """See `Target`."""
        assert self._note is not None
        n_stable, n_canary = self._note.before
        parts = []
        for step in self._steps:
            n = pods_for(step, n_stable)
            parts.append(
                f"{step} %: {n} besides {n_stable} ({100 * n / (n + n_stable):.0f} %)" if step < 100 else ""
            )
        return [
            f"pods: {', '.join(filter(None, parts)) or 'all'}",
            f"rolls back to: {self._stable} {n_stable}, {self._canary} {n_canary}",
        ]

    @property
    def sides(self) -> Sides:
        """See `Target`."""
        here = f'namespace="{self._cluster.namespace}"'
        return Sides(f'{here},pod=~"{self._stable}-{POD}"', f'{here},pod=~"{self._canary}-{POD}"')

    def go_to(self, percent: int) -> str:
        """Scales the canary and waits for its pods; see `Target`."""
        assert self._note is not None
        stable = self._write(msgspec.structs.replace(self._note, run=self._run, percent=percent))
        n_stable = _replicas(stable) or self._note.before[0]
        n_canary = pods_for(percent, n_stable)
        if percent == 100:
            n_canary = max(n_canary, _replicas(self._cluster.get(KIND, self._canary)))
        self._scale(self._canary, n_canary)
        self._n_canary = n_canary
        self._wait_ready(self._canary, n_canary)
        if percent == 100:
            self._empty_stable()
            return f"{self._canary} has all {n_canary} pods, {self._stable} none"
        has = 100 * n_canary / (n_canary + n_stable)
        return f"{self._canary} has {n_canary} of {n_canary + n_stable} pods: {has:.0f} % of the traffic"

    def check_ours(self) -> None:
        """See `Target`."""
        assert self._note is not None
        stable = self._cluster.get(KIND, self._stable)
        self._check_run(stable)
        if self._note.percent == 100 and _replicas(stable):
            raise Overtaken(f"{self.title}: somebody else has scaled it; left unchanged")
        n = _replicas(self._cluster.get(KIND, self._canary))
        if n != self._n_canary:
            raise Overtaken(f"{self.title}: somebody else has scaled {self._canary} to {n}; left unchanged")

    def finish(self) -> str:
        """Records that the last step has passed; see `Target`."""
        assert self._note is not None
        self._write(msgspec.structs.replace(self._note, run=self._run, is_done=True))
        return (
            f"{self._canary} has all traffic; {self._stable} has no pods, so its autoscaler is off: give it the same "
            "image, then bring its pods back with --restore"
        )

    def put_back(self, *, is_dry: bool = False) -> str:
        """Brings the stable pods back, waits for them, and scales the canary down; see `Target`.

        The canary's pods are removed only once the stable ones are ready, even after interrupted attempts.
        """
        stable = self._cluster.get(KIND, self._stable)
        note = read_note(stable)
        if note is None and self._has_moved:
            note = self._note  # Removed by somebody who replaced the whole object.
            assert note is not None
        elif note is None:
            return ""
        elif self._has_moved:
            self._check_run(stable)
        canary = note.names[1]
        n_now = _replicas(self._cluster.get(KIND, canary))
        n_canary = note.before[1]
        # The autoscaler may have added pods after the note; the canary's present count is what is needed.
        n_stable = _replicas(stable) or max(note.before[0], n_now)
        if is_dry:
            return (
                f"{self._stable} would get {n_stable} pods, then {canary} would go from {n_now} to {n_canary}"
            )
        if not _replicas(stable):
            self._scale(self._stable, n_stable)
        # Below 100 % the stable pods never left: one that is ready is enough.
        self._wait_ready(self._stable, n_stable if note.percent == 100 else 1)
        self._scale(canary, n_canary)
        change(
            lambda: self._cluster.patch(
                KIND, self._cluster.get(KIND, self._stable), {"metadata": annotate(None)}
            )
        )
        return f"pods are as before: {self._stable} has {n_stable}, {canary} {n_canary}"

    @property
    def by_hand(self) -> str:
        """See `Target`."""
        note = self._note
        if note is None:
            return "run this again"
        return (
            f"run this again with --restore, or scale {self._stable} to {note.before[0]}, and when its pods are ready, "
            f"{self._canary} to {note.before[1]}"
        )

    def _check_pods(self, stable: Document, canary: Document) -> None:
        """Checks that pod counts act as weights, and that no autoscaler sets the canary's.

        Raises:
            LifecycleError: one of them does not hold.
        """
        selectors = [each["spec"]["selector"].get("matchLabels", {}) for each in (stable, canary)]
        names = f"{self._stable} and {self._canary}"
        if selectors[0] == selectors[1]:
            raise LifecycleError(f"the Deployments {names} select the same pods; give each its own label")
        labels = [each["spec"]["template"]["metadata"].get("labels", {}) for each in (stable, canary)]
        services = self._cluster.service_selectors()
        if not any(all(selector.items() <= each.items() for each in labels) for selector in services):
            raise LifecycleError(
                f"no Service selects the pods of both {names}, so pod counts cannot split traffic "
                "(k8s/components/canary-pods)"
            )
        for autoscaler in self._cluster.all_of(AUTOSCALER):
            reference = autoscaler["spec"]["scaleTargetRef"]
            if (reference.get("kind"), reference.get("name")) == ("Deployment", self._canary):
                raise LifecycleError(
                    f"the autoscaler {autoscaler['metadata']['name']} sets the pods of {self._canary}, too: delete it"
                )

    def _check_run(self, stable: Document) -> None:
        check_run(read_note(stable), self._run, self.title)

    def _write(self, note: Note) -> Document:
        """Writes the note; returns the stable Deployment."""

        def attempt() -> Document:
            stable = self._cluster.get(KIND, self._stable)
            if self._has_moved:
                self._check_run(stable)
            if read_note(stable) == note:
                return stable
            return self._cluster.patch(KIND, stable, {"metadata": annotate(note)})

        stable = change(attempt)
        self._note, self._has_moved = note, True
        return stable

    def _scale(self, name: str, n: int) -> None:
        def attempt() -> None:
            document = self._cluster.get(KIND, name)
            if _replicas(document) != n:
                self._cluster.patch(KIND, document, {"spec": {"replicas": n}})

        change(attempt)

    def _empty_stable(self) -> None:
        """Scales the stable Deployment to 0, if this run still owns it."""

        def attempt() -> None:
            stable = self._cluster.get(KIND, self._stable)
            self._check_run(stable)
            if _replicas(stable):
                self._cluster.patch(KIND, stable, {"spec": {"replicas": 0}})

        change(attempt)

    def _wait_ready(self, name: str, n: int) -> None:
        """Waits until `n` pods of the current template are ready.

        Raises:
            NotReached: they are not ready in time, or the Deployment has exceeded its deadline.
        """
        seen = 0

        def look() -> bool | None:
            nonlocal seen
            document = self._cluster.get(KIND, name)
            status = document.get("status") or {}
            # The status counts if it covers the last change, and no pods of an older template are left.
            is_current = status.get("observedGeneration", 0) >= document["metadata"].get("generation", 0)
            is_current = is_current and status.get("replicas", 0) == status.get("updatedReplicas", 0)
            seen = status.get("readyReplicas", 0)
            for condition in status.get("conditions", []):
                if is_current and condition.get("reason") == "ProgressDeadlineExceeded" and seen < n:
                    raise NotReached(f"{name}: {condition.get('message', 'its pods do not become ready')}")
            return True if is_current and seen >= n else None

        wait_until(look, READY_SECONDS, lambda: f"{name} has {seen} of {n} pods ready")


def pods_for(percent: int, n_stable: int) -> int:
    """Returns how many pods a canary needs besides the stable ones, at least one; for 100 %, as many as these."""
    if percent == 100:
        return n_stable
    return max(1, math.ceil(n_stable * percent / (100 - percent)))


def _replicas(document: Document) -> int:
    # Kubernetes defaults to 1.
    n: int = document["spec"].get("replicas", 1)
    return n
