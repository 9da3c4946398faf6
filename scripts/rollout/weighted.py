"""An HTTPRoute or a SeldonDeployment, whose own fields say how much of the traffic each side gets."""

import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import msgspec

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.rollout.cluster import Cluster, Document, Kind
from scripts.rollout.target import Sides, change

NOTE = "model-server/canary"
"""The annotation that says what a canary has done, so that the next run can go on or put it back."""


class Note(msgspec.Struct, frozen=True):
    """What that annotation holds."""

    run: str
    """Which run wrote it; another one that finds its own gone stops."""
    percent: int
    """That the canary was given last."""
    before: tuple[int, int]
    """What the stable side and the canary had before: weights, or replicas."""


def new_run() -> str:
    """Returns a name for this run that no other has."""
    return f"{os.getpid()}-{time.time_ns()}"


def read_note(document: Document) -> Note | None:
    """Returns the note of an object; None where it has none that can be read."""
    text = document["metadata"].get("annotations", {}).get(NOTE)
    try:
        return None if text is None else msgspec.json.decode(text, type=Note)
    except msgspec.MsgspecError:
        return None


def annotate(note: Note | None) -> Document:
    """Returns the change of an object's metadata that writes the note, or takes it away."""
    text = None if note is None else msgspec.json.encode(note).decode()
    return {"annotations": {NOTE: text}}


class Weights(NamedTuple):
    """Of both sides."""

    stable: int
    canary: int

    @property
    def percent(self) -> float:
        """Of the traffic, that the canary gets."""
        return 100 * self.canary / max(1, self.stable + self.canary)


class Weighted:
    """An object with weights. Weights and note change at once, or not at all."""

    kind: ClassVar[Kind]
    is_present = True

    def __init__(self, cluster: Cluster, name: str, canary: str | None) -> None:
        """Takes the object's name, and the canary's where it is not the second of two."""
        self._cluster = cluster
        self._name = name
        self._wanted = canary
        self._run = new_run()
        self._note: Note | None = None
        self._has_moved = False
        self._names = ("", "")
        self.title = f"{self.kind.title} {cluster.namespace}/{name}"

    def open(self, steps: Sequence[int] | None) -> Sequence[int]:
        """Reads where it is; see `Target`."""
        assert steps is not None
        document = self._cluster.get(self.kind, self._name)
        self._names = self._find_names(document)
        weights = self._read(document)
        note = read_note(document)
        if note is None or Weights(100 - note.percent, note.percent) != weights:
            # None, or somebody has set the weights since: what they are now is what there is to come back to.
            note = Note(self._run, -1, (weights.stable, weights.canary))
        self._note = note
        if note.percent == 100:
            return []
        return [step for step in steps if step >= max(note.percent, weights.percent)]

    @property
    def sides(self) -> Sides:
        """See `Target`."""
        stable, canary = (self._matchers(name) for name in self._names)
        return Sides(stable, canary)

    def go_to(self, percent: int) -> str:
        """Sets the weights; see `Target`."""
        assert self._note is not None
        note = msgspec.structs.replace(self._note, run=self._run, percent=percent)

        def attempt() -> None:
            document = self._cluster.get(self.kind, self._name)
            found = read_note(document)
            if found != note:
                if self._has_moved:
                    self._check(document)
                self._write(document, Weights(100 - percent, percent), note)

        change(attempt)
        self._note, self._has_moved = note, True
        return f"{self._names[1]} gets {percent} % of the traffic"

    def check_ours(self) -> None:
        """See `Target`."""
        self._check(self._cluster.get(self.kind, self._name))

    def finish(self) -> str:
        """Leaves it as it is; see `Target`."""
        stable, canary = self._names
        return f"all traffic is {canary}'s; give {stable} the same image, then put the weights back with --restore"

    def put_back(self) -> str:
        """Sets the weights as they were; see `Target`."""

        def attempt() -> str:
            document = self._cluster.get(self.kind, self._name)
            found = read_note(document)
            if found is None:
                return ""
            if self._has_moved:
                self._check(document)
            self._names = self._find_names(document)
            before = Weights(*found.before)
            self._write(document, before, None)
            stable, canary = self._names
            return f"weights are as before: {stable} {before.stable}, {canary} {before.canary}"

        return change(attempt)

    @property
    def by_hand(self) -> str:
        """See `Target`."""
        stable, canary = self._names
        before = self._note.before if self._note is not None else ("?", "?")
        return f"run this again with --restore, or set the weights of {stable} and {canary} to {before[0]} and {before[1]}"

    def _check(self, document: Document) -> None:
        found = read_note(document)
        weights = self._read(document)
        if found is None or found.run != self._run:
            raise Overtaken(f"{self.title}: another canary has taken it over; it is left as it is")
        if weights != Weights(100 - found.percent, found.percent):
            raise Overtaken(
                f"{self.title}: somebody else has set the weights to {weights.stable} and {weights.canary}; "
                "they are left as they are"
            )

    def _write(self, document: Document, weights: Weights, note: Note | None) -> None:
        changed = {"metadata": annotate(note)} | self._with_weights(document, weights)
        self._cluster.patch(self.kind, document, changed)

    def _find_names(self, document: Document) -> tuple[str, str]:
        names = self._all_names(document)
        if self._wanted is not None and self._wanted not in names:
            raise LifecycleError(f"{self.title} has no {self._wanted}; there are: {', '.join(names)}")
        if len(names) != 2:
            raise LifecycleError(f"{self.title} shares traffic between {names or 'nobody'}; two are needed")
        canary = self._wanted or names[1]
        (stable,) = (name for name in names if name != canary)
        return stable, canary

    def _all_names(self, document: Document) -> list[str]:
        raise NotImplementedError

    def _read(self, document: Document) -> Weights:
        raise NotImplementedError

    def _with_weights(self, document: Document, weights: Weights) -> Document:
        raise NotImplementedError

    def _matchers(self, name: str) -> str:
        raise NotImplementedError

    @property
    def _namespace(self) -> str:
        return f'namespace="{self._cluster.namespace}"'


class HTTPRoute(Weighted):
    """Gateway API: the weights of two Services in each rule that names both."""

    kind = Kind("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes")

    def _rules(self, document: Document) -> list[list[dict[str, Any]]]:
        """Returns the backends of the rules that share traffic."""
        rules = [rule.get("backendRefs", []) for rule in document["spec"].get("rules", [])]
        return [backends for backends in rules if len(backends) > 1]

    def _all_names(self, document: Document) -> list[str]:
        return list(dict.fromkeys(backend["name"] for rule in self._rules(document) for backend in rule))

    def _read(self, document: Document) -> Weights:
        # A backend without a weight has 1. Source: the API's reference, BackendRef.
        found = {
            Weights(*(self._weight(backends, name) for name in self._names))
            for backends in self._rules(document)
        }
        if len(found) != 1:
            raise LifecycleError(
                f"{self.title}: its rules have different weights; set them to the same first"
            )
        return found.pop()

    @staticmethod
    def _weight(backends: list[dict[str, Any]], name: str) -> int:
        return next((backend.get("weight", 1) for backend in backends if backend["name"] == name), 0)

    def _with_weights(self, document: Document, weights: Weights) -> Document:
        by_name = dict(zip(self._names, weights, strict=True))
        rules = []
        for rule in document["spec"]["rules"]:
            backends = rule.get("backendRefs", [])
            if len(backends) > 1:
                backends = [backend | {"weight": by_name[backend["name"]]} for backend in backends]
            rules.append(rule | ({"backendRefs": backends} if backends else {}))
        return {"spec": {"rules": rules}}

    def _matchers(self, name: str) -> str:
        return f'{self._namespace},service="{name}"'


class SeldonDeployment(Weighted):
    """Seldon Core 1: the traffic of two predictors."""

    kind = Kind("SeldonDeployment", "machinelearning.seldon.io", "v1", "seldondeployments")

    @staticmethod
    def _predictors(document: Document) -> list[dict[str, Any]]:
        """Returns those that answer; a shadow's answers go nowhere."""
        return [each for each in document["spec"]["predictors"] if not each.get("shadow")]

    def _all_names(self, document: Document) -> list[str]:
        return [each["name"] for each in self._predictors(document)]

    def _read(self, document: Document) -> Weights:
        traffic = {each["name"]: each.get("traffic", 0) for each in self._predictors(document)}
        return Weights(*(traffic[name] for name in self._names))

    def _with_weights(self, document: Document, weights: Weights) -> Document:
        by_name = dict(zip(self._names, weights, strict=True))
        predictors = [
            each | ({"traffic": by_name[each["name"]]} if each["name"] in by_name else {})
            for each in document["spec"]["predictors"]
        ]
        return {"spec": {"predictors": predictors}}

    def _matchers(self, name: str) -> str:
        # Seldon calls the Deployment of a predictor NAME-PREDICTOR-0-CONTAINER.
        return f'{self._namespace},pod=~"{self._name}-{name}-[0-9]+-.+"'
