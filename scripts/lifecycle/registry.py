"""The registered model, for those who move its alias or its legacy stage."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.moves import Move, Selector, append, encode_tag, new_move, read_moves
from scripts.lifecycle.results import Results
from scripts.training import TrainingError
from scripts.training.registration import connect, reason
from serving.prepare.resolving import CHALLENGER_PERCENT_TAG, Version, in_stage, latest_moved
from serving.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RegisteredModel:
    """One model of the registry, its alias or stage, and the moves that were recorded."""

    def __init__(self, settings: Settings, name: str, selector: Selector) -> None:
        """Asks the registry.

        Raises:
            LifecycleError: it does not answer, or has no such model.
        """
        self.name, self.selector = name, selector
        try:
            self._client: MlflowClient = connect(settings.tracking_uri, settings.registry_timeout_seconds)
        except TrainingError as error:
            raise LifecycleError(str(error)) from None
        from mlflow.exceptions import MlflowException

        from serving.prepare.registry import all_versions

        try:
            model = self._client.get_registered_model(name)
            versions = all_versions(self._client, name)
        except MlflowException as error:
            raise LifecycleError(f"the registry has no model {name!r}: {reason(error)}") from None
        self.current = _choose_current(selector, model.aliases, versions)
        self._stages = {str(version.version): version.current_stage for version in versions}
        self.moves = read_moves(version.tags for version in versions)

    @property
    def where(self) -> str:
        """Model and alias or stage, for people."""
        return self.selector.of(self.name)

    def check_version(self, version: str) -> None:
        """Refuses a version that is not registered.

        Raises:
            LifecycleError: names those that are.
        """
        if version not in self._stages:
            there = ", ".join(sorted(self._stages, key=int)) or "none"
            raise LifecycleError(f"model {self.name!r} has no version {version} (there are: {there})")

    def move(self, kind: str, target: str, why: str, audit_log: Path, results: Results | None = None) -> Move:
        """Lets the alias point at a version, or brings it to the stage, and records it.

        Args:
            kind: `promote` or `rollback`.
            target: the version.
            why: in the mover's words.
            audit_log: gets a line.
            results: of the validation before it.

        Raises:
            LifecycleError: the registry refuses; nothing has changed then.
        """
        from mlflow.exceptions import MlflowException

        move = new_move(
            kind, self.name, self.selector, source=self.current, target=target, why=why, results=results
        )
        try:
            if self.selector.kind == "alias":
                self._client.set_registered_model_alias(self.name, self.selector.name, target)
            else:
                # One version is left in the stage, which is then also what those take who go by the highest number.
                self._transition(target, self.selector.name, archive_others=True)
        except MlflowException as error:
            raise LifecycleError(f"{self.where} could not be moved: {reason(error)}") from None
        self.current = target
        try:
            self._client.set_model_version_tag(self.name, target, move.tag, encode_tag(move))
            append(audit_log, move)
        except (MlflowException, OSError) as error:
            raise LifecycleError(
                f"{self.where} is version {target} now, and that could not be recorded: {reason(error)}"
            ) from None
        self.moves.append(move)
        return move

    def take_back(self, to: str | None, why: str, audit_log: Path) -> None:
        """Undoes a move: lets the alias point where it did, or nowhere; brings versions back to their stages.

        Raises:
            LifecycleError: the registry refuses.
        """
        from mlflow.exceptions import MlflowException

        left = self.current
        if to is not None:
            self.move("rollback", to, why, audit_log)
        elif self.selector.kind == "alias":
            self.unset_alias(self.selector.name)
        self.current = to
        if self.selector.kind == "alias" or left is None:
            return
        stage = self._stages[left]
        # Where it was in the same stage before, it was not the one that counted, and must not become it.
        if stage != self.selector.name:
            try:
                self._transition(left, stage, archive_others=False)
            except MlflowException as error:
                raise LifecycleError(
                    f"version {left} could not be brought back to the stage {stage}: {reason(error)}"
                ) from None

    def _transition(self, version: str, stage: str, *, archive_others: bool) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # that stages are deprecated
            self._client.transition_model_version_stage(self.name, version, stage, archive_others)

    def set_challenger(self, alias: str, version: str, percent: float) -> None:
        """Gives a version a part of the requests.

        Raises:
            LifecycleError: the registry refuses.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_registered_model_tag(self.name, CHALLENGER_PERCENT_TAG, f"{percent:g}")
            self._client.set_registered_model_alias(self.name, alias, version)
        except MlflowException as error:
            raise LifecycleError(f"the challenger could not be set: {reason(error)}") from None

    def unset_challenger(self, alias: str) -> None:
        """Takes the requests away from the challenger.

        Raises:
            LifecycleError: the registry refuses.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_registered_model_tag(self.name, CHALLENGER_PERCENT_TAG, "0")
        except MlflowException as error:
            raise LifecycleError(f"the challenger's share could not be taken back: {reason(error)}") from None
        self.unset_alias(alias)

    def unset_alias(self, alias: str) -> None:
        """Removes an alias.

        Raises:
            LifecycleError: the registry refuses.
        """
        from mlflow.exceptions import MlflowException

        try:
            self._client.delete_registered_model_alias(self.name, alias)
        except MlflowException as error:
            raise LifecycleError(f"the alias {alias!r} could not be removed: {reason(error)}") from None


def _choose_current(
    selector: Selector, aliases: Mapping[str, str], versions: Sequence[Version]
) -> str | None:
    """Returns the version that a service takes, or would; None where there is none."""
    if selector.kind == "stage":
        there = in_stage(versions, selector.name)
        return str(latest_moved(there, selector.name)[0].version) if there else None
    found = aliases.get(selector.name)
    return str(found) if found is not None else None
