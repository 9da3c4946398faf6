"""Two plain Deployments behind one Service: the numbers of their pods are the weights."""

import math
from collections.abc import Sequence

import msgspec

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.rollout.cluster import Cluster, Document, Kind
from scripts.rollout.target import NotReached, Sides, change, wait_until
from scripts.rollout.weighted import Note, annotate, new_run, read_note

READY_SECONDS = 1200
"""Source: progressDeadlineSeconds in k8s/base/deployment.yaml."""

KIND = Kind("Deployment", "apps", "v1", "deployments")

POD = "[0-9a-z]+-[0-9a-z]+"
"""What a Deployment's pods have after its name."""


class Deployments:
    """The canary gets so many pods beside the stable ones that its part comes out.

    The stable Deployment keeps its own, which are its autoscaler's; only for 100 % it is left without. So there are
    never fewer pods than before.
    """

    is_present = False

    def __init__(self, cluster: Cluster, name: str, canary: str | None) -> None:
        """Takes the names; without the second, the canary is called NAME-canary."""
        self._cluster = cluster
        self._stable = name
        self._canary = canary or f"{name}-canary"
        self._run = new_run()
        self._note: Note | None = None
        self._has_moved = False
        self.title = f"{KIND.title} {cluster.namespace}/{name}"

    def open(self, steps: Sequence[int] | None) -> Sequence[int]:
        """Reads where it is; see `Target`."""
        assert steps is not None
        stable = self._cluster.get(KIND, self._stable)
        canary = self._cluster.get(KIND, self._canary)
        _check_same_service(stable, canary)
        note = read_note(stable)
        if note is None or not _is_as_noted(note, stable, canary):
            if not _replicas(stable):
                raise LifecycleError(f"{self.title} has no pods, and nothing says that a canary has them")
            note = Note(self._run, -1, (_replicas(stable), _replicas(canary)))
        self._note = note
        if note.percent == 100:
            return []
        return [step for step in steps if step >= note.percent]

    @property
    def sides(self) -> Sides:
        """See `Target`."""
        here = f'namespace="{self._cluster.namespace}"'
        return Sides(f'{here},pod=~"{self._stable}-{POD}"', f'{here},pod=~"{self._canary}-{POD}"')

    def go_to(self, percent: int) -> str:
        """Scales the canary, and waits for its pods; see `Target`."""
        assert self._note is not None
        note = msgspec.structs.replace(self._note, run=self._run, percent=percent)

        def attempt() -> Document:
            stable = self._cluster.get(KIND, self._stable)
            if read_note(stable) == note:
                return stable
            if self._has_moved:
                self._check_run(stable)
            return self._cluster.patch(KIND, stable, {"metadata": annotate(note)})

        stable = change(attempt)
        self._note, self._has_moved = note, True
        n_stable = _replicas(stable) or note.before[0]
        n_canary = pods_for(percent, n_stable)
        if percent == 100:
            n_canary = max(n_canary, _replicas(self._cluster.get(KIND, self._canary)))
        self._scale(self._canary, n_canary)
        self._wait_ready(self._canary, n_canary)
        if percent == 100:
            self._scale(self._stable, 0)
            return f"{self._canary} has all {n_canary} pods, {self._stable} none"
        has = 100 * n_canary / (n_canary + n_stable)
        return f"{self._canary} has {n_canary} of {n_canary + n_stable} pods: {has:.0f} % of the traffic"

    def check_ours(self) -> None:
        """See `Target`."""
        assert self._note is not None
        stable = self._cluster.get(KIND, self._stable)
        self._check_run(stable)
        if self._note.percent == 100 and _replicas(stable):
            raise Overtaken(f"{self.title}: somebody else has scaled it; it is left as it is")
        canary = self._cluster.get(KIND, self._canary)
        if not _replicas(canary):
            raise Overtaken(
                f"{self.title}: somebody else has scaled {self._canary} to 0; it is left as it is"
            )

    def finish(self) -> str:
        """Leaves it as it is; see `Target`."""
        return (
            f"all traffic is {self._canary}'s, which no autoscaler of {self._stable} minds; give {self._stable} the "
            "same image, then bring its pods back with --restore"
        )

    def put_back(self) -> str:
        """Brings the stable pods back, waits for them, and scales the canary down; see `Target`."""
        stable = self._cluster.get(KIND, self._stable)
        note = read_note(stable)
        if note is None:
            return ""
        if self._has_moved:
            self._check_run(stable)
        n_stable, n_canary = note.before
        if not _replicas(stable):
            self._scale(self._stable, n_stable)
            self._wait_ready(self._stable, n_stable)
        self._scale(self._canary, n_canary)
        change(
            lambda: self._cluster.patch(
                KIND, self._cluster.get(KIND, self._stable), {"metadata": annotate(None)}
            )
        )
        return f"pods are as before: {self._canary} has {n_canary}"

    @property
    def by_hand(self) -> str:
        """See `Target`."""
        n_stable, n_canary = self._note.before if self._note is not None else ("?", "?")
        return f"run this again with --restore, or scale {self._stable} to {n_stable}, then {self._canary} to {n_canary}"

    def _check_run(self, stable: Document) -> None:
        note = read_note(stable)
        if note is None or note.run != self._run:
            raise Overtaken(f"{self.title}: another canary has taken it over; it is left as it is")

    def _scale(self, name: str, n: int) -> None:
        def attempt() -> None:
            document = self._cluster.get(KIND, name)
            if _replicas(document) != n:
                self._cluster.patch(KIND, document, {"spec": {"replicas": n}})

        change(attempt)

    def _wait_ready(self, name: str, n: int) -> None:
        seen = 0

        def look() -> bool | None:
            nonlocal seen
            document = self._cluster.get(KIND, name)
            status = document.get("status", {})
            # What it says is of the pods that it was asked for last, and of none that an older template made.
            is_current = status.get("observedGeneration", 0) >= document["metadata"].get("generation", 0)
            seen = min(status.get("readyReplicas", 0), status.get("updatedReplicas", 0))
            for condition in status.get("conditions", []):
                if is_current and condition.get("reason") == "ProgressDeadlineExceeded":
                    raise NotReached(f"{name}: {condition.get('message', 'its pods do not get ready')}")
            return True if is_current and seen >= n else None

        wait_until(look, READY_SECONDS, lambda: f"{name} has {seen} of {n} pods ready")


def pods_for(percent: int, n_stable: int) -> int:
    """Returns how many pods a canary needs beside the stable ones, at least one; all of them for 100 %."""
    if percent == 100:
        return n_stable
    return max(1, math.ceil(n_stable * percent / (100 - percent)))


def _replicas(document: Document) -> int:
    # Kubernetes takes 1 where it is not said.
    n: int = document["spec"].get("replicas", 1)
    return n


def _is_as_noted(note: Note, stable: Document, canary: Document) -> bool:
    """True where the pods of both are what the canary of the note has left."""
    return bool(_replicas(canary)) and (note.percent == 100) == (not _replicas(stable))


def _check_same_service(stable: Document, canary: Document) -> None:
    """Makes sure that the pods of both are told apart by a label at least.

    Raises:
        LifecycleError: each would take the other's pods for its own.
    """
    selectors = [each["spec"]["selector"].get("matchLabels", {}) for each in (stable, canary)]
    if selectors[0] == selectors[1]:
        names = " and ".join(each["metadata"]["name"] for each in (stable, canary))
        raise LifecycleError(f"the Deployments {names} select the same pods; give each a label of its own")
