"""An HTTPRoute or a SeldonDeployment, whose own fields say how much of the traffic each side gets."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, NoReturn

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
    names: tuple[str, str]
    """Of the stable side and the canary."""
    before: tuple[int, int]
    """What they had before: weights, or replicas."""
    percent: int
    """That the canary was given last."""
    is_done: bool = False
    """The last step was found good, too."""


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
        self._document: Document = {}
        self.is_begun = False
        self.title = f"{self.kind.title} {cluster.namespace}/{name}"

    def open(self, steps: Sequence[int] | None) -> Sequence[int] | None:
        """Reads where it is; see `Target`."""
        assert steps is not None
        document = self._cluster.get(self.kind, self._name)
        note = read_note(document)
        if note is not None and not self._is_as_noted(document, note):
            # Somebody has set the weights since, such as an apply of the manifests: they are what there is to come
            # back to.
            note = None
        if note is not None and self._wanted not in {None, note.names[1]}:
            raise LifecycleError(
                f"{self.title}: an earlier run has left {note.names[1]} at {note.percent} %; --restore puts it back"
            )
        self._names = self._find_names(document) if note is None else note.names
        self._document = document
        weights = self._read(document, self._names)
        self.is_begun = note is not None
        self._note = note or Note(self._run, self._names, (weights.stable, weights.canary), -1)
        if self._note.is_done:
            return None
        return [step for step in steps if step >= max(self._note.percent, weights.percent)]

    @property
    def plan(self) -> Sequence[str]:
        """See `Target`."""
        assert self._note is not None
        stable, canary = self._note.names
        return [f"it goes back to: {stable} {self._note.before[0]}, {canary} {self._note.before[1]}"]

    @property
    def sides(self) -> Sides:
        """See `Target`."""
        stable, canary = (self._matchers(self._document, name) for name in self._names)
        return Sides(stable, canary)

    def go_to(self, percent: int) -> str:
        """Sets the weights; see `Target`."""
        assert self._note is not None
        self._move(msgspec.structs.replace(self._note, run=self._run, percent=percent))
        return f"{self._names[1]} gets {percent} % of the traffic"

    def check_ours(self) -> None:
        """See `Target`."""
        self._check(self._cluster.get(self.kind, self._name))

    def finish(self) -> str:
        """Leaves it as it is; see `Target`."""
        assert self._note is not None
        self._move(msgspec.structs.replace(self._note, run=self._run, is_done=True))
        stable, canary = self._names
        return f"all traffic is {canary}'s; give {stable} the same image, then put the weights back with --restore"

    def put_back(self, *, is_dry: bool = False) -> str:
        """Sets the weights as they were; see `Target`."""

        def attempt() -> str:
            document = self._cluster.get(self.kind, self._name)
            note = read_note(document)
            if note is None and self._has_moved:
                # Taken away by somebody who writes the whole object. Where the weights are ours still, they go back.
                note = self._note
                assert note is not None
            elif note is None:
                return ""
            elif self._has_moved:
                self._check(document)
            if not self._is_as_noted(document, note):
                self._refuse_to_move(document, note)
            stable, canary = note.names
            now, before = self._read(document, note.names), Weights(*note.before)
            if is_dry:
                return f"{stable} would get {before.stable} after {now.stable}, {canary} {before.canary} after {now.canary}"
            self._write(document, note.names, before, None)
            return f"weights are as before: {stable} {before.stable}, {canary} {before.canary}"

        return change(attempt)

    @property
    def by_hand(self) -> str:
        """See `Target`."""
        note = self._note
        if note is None:
            return "run this again"
        return (
            f"run this again with --restore, or set the weights of {note.names[0]} and {note.names[1]} to "
            f"{note.before[0]} and {note.before[1]}"
        )

    def _move(self, note: Note) -> None:
        """Writes the note and the weights that it says."""

        def attempt() -> None:
            document = self._cluster.get(self.kind, self._name)
            if self._has_moved:
                self._check(document)
            if read_note(document) != note:
                self._write(document, note.names, Weights(100 - note.percent, note.percent), note)

        change(attempt)
        self._note, self._has_moved = note, True

    def _check(self, document: Document) -> None:
        found = read_note(document)
        if found is None or found.run != self._run:
            raise Overtaken(f"{self.title}: another canary has taken it over; it is left as it is")
        if not self._is_as_noted(document, found):
            self._refuse_to_move(document, found)

    def _refuse_to_move(self, document: Document, note: Note) -> NoReturn:
        weights = self._read(document, note.names)
        raise Overtaken(
            f"{self.title}: somebody else has set the weights to {weights.stable} and {weights.canary}; "
            "they are left as they are"
        )

    def _is_as_noted(self, document: Document, note: Note) -> bool:
        there = self._all_names(document)
        expected = Weights(100 - note.percent, note.percent)
        return set(note.names) <= set(there) and self._read(document, note.names) == expected

    def _write(self, document: Document, names: tuple[str, str], weights: Weights, note: Note | None) -> None:
        changed = {"metadata": annotate(note)}
        changed |= self._with_weights(document, dict(zip(names, weights, strict=True)))
        self._cluster.patch(self.kind, document, changed)

    def _find_names(self, document: Document) -> tuple[str, str]:
        names = self._all_names(document)
        if self._wanted is not None and self._wanted not in names:
            raise LifecycleError(f"{self.title} has no {self._wanted}; there are: {', '.join(names)}")
        if len(names) != 2:
            raise LifecycleError(
                f"{self.title} shares traffic between {', '.join(names) or 'nobody'}; two are needed"
            )
        canary = self._wanted or names[1]
        (stable,) = (name for name in names if name != canary)
        return stable, canary

    def _all_names(self, document: Document) -> list[str]:
        raise NotImplementedError

    def _read(self, document: Document, names: tuple[str, str]) -> Weights:
        raise NotImplementedError

    def _with_weights(self, document: Document, weights: Mapping[str, int]) -> Document:
        raise NotImplementedError

    def _matchers(self, document: Document, name: str) -> str:
        raise NotImplementedError

    @property
    def _namespace(self) -> str:
        return f'namespace="{self._cluster.namespace}"'


class HTTPRoute(Weighted):
    """Gateway API: the weights of two Services in each rule that names both."""

    kind = Kind("HTTPRoute", "gateway.networking.k8s.io", "v1", "httproutes")

    @property
    def plan(self) -> Sequence[str]:
        """See `Target`; the rules that send to one backend only stay as they are."""
        single = [
            str(number)
            for number, rule in enumerate(self._document["spec"].get("rules", []))
            if len(rule.get("backendRefs", [])) == 1
        ]
        untouched = [f"rules with one backend stay as they are: {', '.join(single)}"] if single else []
        return [*super().plan, *untouched]

    def _rules(self, document: Document) -> list[list[dict[str, Any]]]:
        """Returns the backends of the rules that share traffic."""
        rules = [rule.get("backendRefs", []) for rule in document["spec"].get("rules", [])]
        shared = [backends for backends in rules if len(backends) > 1]
        for backends in shared:
            names = [backend["name"] for backend in backends]
            if len(names) != len(set(names)):
                raise LifecycleError(
                    f"{self.title} names one Service twice in a rule; a weight would count twice"
                )
            for backend in backends:
                if (
                    backend.get("kind", "Service") != "Service"
                    or backend.get("namespace", self._here) != self._here
                ):
                    raise LifecycleError(f"{self.title}: {backend['name']} is not a Service of {self._here}")
        return shared

    @property
    def _here(self) -> str:
        return self._cluster.namespace

    def _all_names(self, document: Document) -> list[str]:
        return list(dict.fromkeys(backend["name"] for rule in self._rules(document) for backend in rule))

    def _read(self, document: Document, names: tuple[str, str]) -> Weights:
        # A backend without a weight has 1. Source: the API's reference, BackendRef.
        found = {
            Weights(*(self._weight(backends, name) for name in names)) for backends in self._rules(document)
        }
        if len(found) != 1:
            raise LifecycleError(
                f"{self.title}: its rules have different weights; set them to the same first"
            )
        return found.pop()

    @staticmethod
    def _weight(backends: list[dict[str, Any]], name: str) -> int:
        return next((backend.get("weight", 1) for backend in backends if backend["name"] == name), 0)

    def _with_weights(self, document: Document, weights: Mapping[str, int]) -> Document:
        rules = []
        for rule in document["spec"]["rules"]:
            backends = rule.get("backendRefs", [])
            if len(backends) > 1:
                backends = [
                    backend | {"weight": weights.get(backend["name"], backend.get("weight", 1))}
                    for backend in backends
                ]
            rules.append(rule | ({"backendRefs": backends} if backends else {}))
        return {"spec": {"rules": rules}}

    def _matchers(self, document: Document, name: str) -> str:  # noqa: ARG002  # Seldon's needs it
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

    def _read(self, document: Document, names: tuple[str, str]) -> Weights:
        traffic = {each["name"]: each.get("traffic", 0) for each in self._predictors(document)}
        return Weights(*(traffic.get(name, 0) for name in names))

    def _with_weights(self, document: Document, weights: Mapping[str, int]) -> Document:
        predictors = [
            each | ({"traffic": weights[each["name"]]} if each["name"] in weights else {})
            for each in document["spec"]["predictors"]
        ]
        return {"spec": {"predictors": predictors}}

    def _matchers(self, document: Document, name: str) -> str:
        # Seldon calls a predictor's Deployments NAME-PREDICTOR-NUMBER-CONTAINERS. Without the containers, pods of a
        # predictor `main` would be told like those of `main-2`.
        (predictor,) = (each for each in self._predictors(document) if each["name"] == name)
        parts = "|".join(
            part.get("metadata", {}).get("name")
            or "-".join(container["name"] for container in part["spec"]["containers"])
            for part in predictor.get("componentSpecs", [])
        )
        return f'{self._namespace},pod=~"{self._name}-{name}-[0-9]+-(?:{parts or ".+"})-.+"'
