"""The registered model whose alias or legacy stage is moved."""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.lifecycle import LifecycleError, NotRecorded, Overtaken
from scripts.lifecycle.connection import NO_ALIASES, connect, one_line, reason, short_requests
from scripts.lifecycle.moves import Move, Selector, append, check_appendable, encode_tag, new_move, read_moves
from scripts.lifecycle.placement import Placement, followed, name_of, place
from scripts.lifecycle.semantic_versions import Level, SemanticVersion, assign, check_wish, read_versions
from scripts.lifecycle.validation_record import Results
from serving.errors import PrepareError
from serving.prepare.registry.access import is_older
from serving.prepare.registry.lookup import Model, read_model, refuse_missing_database
from serving.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RegisteredModel:
    """One model of the registry, its alias or stage, and its recorded moves.

    Every move reads the state first. If it differs from the last known one, somebody else has moved it, and the move fails.
    """

    def __init__(self, settings: Settings, name: str, selector: Selector) -> None:
        """Reads the model from the registry.

        Raises:
            LifecycleError: it does not answer, or has no such model.
        """
        self.name, self.selector = name, selector
        self._settings = settings
        found = self._read_all(settings)
        self.current = followed(selector, found.aliases, found.versions)
        """The version that services take."""
        self._seen = place(selector, found.aliases, found.versions)
        self.aliases = {alias: str(version) for alias, version in found.aliases.items()}
        self.tags = found.tags
        self.versions = {str(version.version): version for version in found.versions}
        self.semantic_versions = read_versions(found.versions)
        """Of those that have one, by number."""
        self.moves = read_moves(version.tags for version in found.versions)
        self._undo: _Undo | None = None
        self._came_from = self.current

    def _read_all(self, settings: Settings) -> Model:
        """Reads without MLflow if possible: importing it takes seconds."""
        try:
            refuse_missing_database(settings)
            found = read_model(settings, self.name)
        except PrepareError as error:
            raise LifecycleError(str(error)) from None
        if found is not None:
            return found
        with self.asking(f"model {self.name!r} could not be read") as client:
            from mlflow.exceptions import MlflowException

            from serving.prepare.registry.client import all_versions, suggest_name

            try:
                model = client.get_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                hint = suggest_name(client, self.name)
                raise LifecycleError(f"the registry has no model {self.name!r}{hint}") from None
            return Model(model.aliases, model.tags, all_versions(client, self.name))

    @functools.cached_property
    def _client(self) -> "MlflowClient":
        return connect(self._settings)

    @property
    def where(self) -> str:
        """Model and alias or stage, for messages."""
        return self.selector.of(self.name)

    @property
    def has_moved(self) -> bool:
        """True if the last move is known to have been made."""
        return self._undo is not None and self._undo.has_arrived

    def check_version(self, version: str) -> None:
        """Rejects a version that is not registered.

        Raises:
            LifecycleError: it is not; the message names those that are.
        """
        if version not in self.versions:
            there = ", ".join(sorted(self.versions, key=int)) or "none"
            raise LifecycleError(f"model {self.name!r} has no version {version} (there are: {there})")

    def check_wish(self, version: str, wish: SemanticVersion | Level | None) -> None:
        """Checks that no other version has the semantic version wished for.

        Raises:
            LifecycleError: one has.
        """
        check_wish(self.name, wish, self.semantic_versions, version)

    def call(self, version: str, wish: SemanticVersion | Level | None) -> str:
        """Gives a version its semantic version, unless it has one and no other is wished for.

        Returns:
            What was given and why; empty if it has one already.

        Raises:
            LifecycleError: it is another version's, or the registry rejects it.
        """
        with self.asking(f"version {version} could not be given a semantic version") as client:
            return assign(client, self.name, version, self._came_from, wish)

    @contextmanager
    def asking(self, trouble: str) -> "Iterator[MlflowClient]":
        """Yields the client, with short timeouts.

        Args:
            trouble: message of a failure, before the reason.

        Raises:
            LifecycleError: the registry does not answer, or refuses.
        """
        client = self._client
        try:
            with short_requests(self._settings), one_line(trouble, self._settings.registry):
                yield client
        except PrepareError as error:
            raise LifecycleError(f"{trouble}: {error}") from None

    def read(self) -> Placement:
        """Returns what the alias or the stage holds now.

        Raises:
            LifecycleError: the registry does not answer.
        """
        from serving.prepare.registry.client import all_versions

        with self.asking(f"{self.where} could not be read") as client:
            if self.selector.kind == "alias":
                return place(self.selector, client.get_registered_model(self.name).aliases, ())
            return place(self.selector, {}, all_versions(client, self.name))

    def check_ours(self) -> None:
        """Checks that nobody else has moved the alias or the stage since.

        Raises:
            Overtaken: somebody has.
            LifecycleError: the registry does not answer.
        """
        self._check_seen(self.read())

    def _check_seen(self, now: Placement) -> None:
        if now.current != self._seen.current:
            raise Overtaken(
                f"{self.where} is {name_of(now.current)} by now, not {name_of(self._seen.current)}: "
                "somebody else has moved it; left unchanged"
            )

    def move(
        self, kind: str, target: str, why: str, audit_log: Path | None, results: Results | None = None
    ) -> None:
        """Moves the alias or the stage to a version, and records it.

        Args:
            kind: `promote` or `rollback`.
            target: the version.
            why: in the mover's words.
            audit_log: gets a line; None records it in the registry alone.
            results: of the validation before it.

        Raises:
            NotRecorded: it was moved.
            Overtaken: somebody else has moved it since it was read.
            LifecycleError: the registry refuses, or the audit log cannot be written. If the registry did not answer,
                `take_back` finds out whether it was moved.
        """
        if audit_log is not None:
            check_appendable(audit_log)
        move = new_move(
            kind, self.name, self.selector, source=self.current, target=target, why=why, results=results
        )
        now = self.read()
        self._check_seen(now)
        self._undo = _Undo(now, target, self.current)
        with self.asking(f"{self.where} could not be moved") as client:
            if self.selector.kind == "alias":
                self._set_alias(client, target)
            else:
                # Only this version is left in the stage, so clients that take the highest number take it, too.
                self._transition(target, self.selector.name, archive_others=True)
        self._undo.has_arrived = True
        self.current, self._seen = target, Placement((target,))
        self._record(move, audit_log)

    def remove(self, kind: str, why: str, audit_log: Path | None) -> None:
        """Removes the alias, if it is set, and records it as `move` does.

        Raises:
            NotRecorded: it was removed.
            Overtaken: somebody else has moved it.
            LifecycleError: the registry does not answer, or refuses.
        """
        if audit_log is not None:
            check_appendable(audit_log)
        now = self.read()
        self._check_seen(now)
        if now.current is None:
            return
        move = new_move(kind, self.name, self.selector, source=now.current, target=None, why=why)
        with self.asking(f"{self.where} could not be removed") as client:
            client.delete_registered_model_alias(self.name, self.selector.name)
        self.current, self._seen = None, Placement()
        self._record(move, audit_log)

    def take_back(self, why: str, audit_log: Path) -> bool:
        """Undoes the last move: restores or removes the alias, or brings versions back to their stages.

        It can be called again after a failure.

        Returns:
            False if the version never got there.

        Raises:
            NotRecorded: it was rolled back.
            Overtaken: somebody else has moved it since.
            LifecycleError: the registry does not answer, or refuses.
        """
        undo = self._undo
        if undo is None:
            return False
        now = self.read()
        if not now.is_like(undo.left):
            if undo.target not in now.versions or not {*now.versions} <= {*undo.left.versions, undo.target}:
                self._seen = Placement((undo.target,))
                self._check_seen(now)
            undo.has_arrived = undo.is_under_way = True
            self._put_back(undo, now)
        elif not undo.has_arrived:
            return False
        elif not undo.is_under_way:
            self._check_seen(now)
        self.current, self._seen = undo.before, undo.left
        move = new_move("rollback", self.name, self.selector, source=undo.target, target=undo.before, why=why)
        self._record(move, audit_log)
        return True

    def _put_back(self, undo: "_Undo", now: Placement) -> None:
        with self.asking(f"{self.where} could not be rolled back") as client:
            if self.selector.kind == "alias":
                if undo.left.current is None:
                    client.delete_registered_model_alias(self.name, self.selector.name)
                else:
                    client.set_registered_model_alias(self.name, self.selector.name, undo.left.current)
                return
            # In a stage, the version that was changed last is current: the others go back first. The one that has to
            # leave does so at the end, so that an unfinished rollback differs from somebody else's moves.
            for version in undo.left.versions[:-1]:
                if version not in now.versions:
                    self._transition(version, self.selector.name, archive_others=False)
            if undo.left.current is not None:
                self._transition(undo.left.current, self.selector.name, archive_others=False)
            if undo.target not in undo.left.versions:
                self._transition(undo.target, self.versions[undo.target].current_stage, archive_others=False)

    def _set_alias(self, client: "MlflowClient", version: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.set_registered_model_alias(self.name, self.selector.name, version)
        except MlflowException as error:
            if is_older(error):
                raise LifecycleError(f"{NO_ALIASES}; move the stage instead: --stage Production") from None
            raise

    def _transition(self, version: str, stage: str, *, archive_others: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that stages are deprecated
            self._client.transition_model_version_stage(self.name, version, stage, archive_others)

    def _record(self, move: Move, audit_log: Path | None) -> None:
        tagged = move.target or move.source
        assert tagged is not None
        trouble = ""
        try:
            with self.asking("the registry") as client:
                client.set_model_version_tag(self.name, tagged, move.tag, encode_tag(move))
        except LifecycleError as error:
            trouble = str(error)
        try:
            if audit_log is not None:
                append(audit_log, move)
        except OSError as error:
            trouble = f"{audit_log}: {reason(error)}"
        if trouble:
            raise NotRecorded(
                f"{self.where} is {name_of(move.target)} now, and that could not be recorded: {trouble}"
            )
        self.moves.append(move)


class _Undo:
    """What a move has changed, or was about to."""

    def __init__(self, left: Placement, target: str, before: str | None) -> None:
        self.left, self.target, self.before = left, target, before
        self.has_arrived = False
        """True if the version is known to have been there."""
        self.is_under_way = False
        """True once a rollback was tried."""
