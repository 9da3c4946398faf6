"""An object whose fields set each side's share of the traffic."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple, NoReturn

import msgspec

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.rollout.annotation import Note, annotate, check_run, new_run, read_note
from scripts.rollout.cluster import Cluster, Document, Kind
from scripts.rollout.target import Sides, change


class Weights(NamedTuple):
    """The weights of both sides."""

    stable: int
    canary: int

    @property
    def percent(self) -> float:
        """The canary's share of the traffic."""
        return 100 * self.canary / max(1, self.stable + self.canary)


class Weighted:
    """An object with weights. Weights and note change atomically."""

    kind: ClassVar[Kind]
    is_present = True

    def __init__(self, cluster: Cluster, name: str, canary: str | None) -> None:
        """Takes the object's name, and the canary's unless it is the second of two."""
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
        """Reads its progress; see `Target`."""
        assert steps is not None
        document = self._cluster.get(self.kind, self._name)
        note = read_note(document)
        if note is not None and not self._is_as_noted(document, note):
            # Somebody has set the weights since, such as an apply of the manifests: a rollback returns to these.
            note = None
        if note is not None and self._wanted not in {None, note.names[1]}:
            raise LifecycleError(
                f"{self.title}: an earlier run has left {note.names[1]} at {note.percent} %; --restore rolls it back"
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
        return [f"rolls back to: {stable} {self._note.before[0]}, {canary} {self._note.before[1]}"]

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
        """Records that the last step has passed; see `Target`."""
        assert self._note is not None
        self._move(msgspec.structs.replace(self._note, run=self._run, is_done=True))
        stable, canary = self._names
        return f"{canary} has all traffic; give {stable} the same image, then put the weights back with --restore"

    def put_back(self, *, is_dry: bool = False) -> str:
        """Restores the weights; see `Target`."""

        def attempt() -> str:
            document = self._cluster.get(self.kind, self._name)
            note = read_note(document)
            if note is None and self._has_moved:
                # Removed by somebody who replaced the whole object. If the weights are still ours, they go back.
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
                return f"{stable} would go from {now.stable} to {before.stable}, {canary} from {now.canary} to {before.canary}"
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
        """Writes the note and its weights."""

        def attempt() -> None:
            document = self._cluster.get(self.kind, self._name)
            if self._has_moved:
                self._check(document)
            if read_note(document) != note:
                self._write(document, note.names, Weights(100 - note.percent, note.percent), note)

        change(attempt)
        self._note, self._has_moved = note, True

    def _check(self, document: Document) -> None:
        found = check_run(read_note(document), self._run, self.title)
        if not self._is_as_noted(document, found):
            self._refuse_to_move(document, found)

    def _refuse_to_move(self, document: Document, note: Note) -> NoReturn:
        weights = self._read(document, note.names)
        raise Overtaken(
            f"{self.title}: somebody else has set the weights to {weights.stable} and {weights.canary}; "
            "left unchanged"
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
                f"{self.title} must split traffic between two; it has: {', '.join(names) or 'none'}"
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
