"""The registered model, for those who move its alias."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.moves import Move, append, encode, new_move, read_moves
from scripts.training import TrainingError
from scripts.training.registration import connect, reason
from serving.prepare.resolving import CHALLENGER_PERCENT_TAG
from serving.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient


class RegisteredModel:
    """One model of the registry, its alias, and the moves that were recorded."""

    def __init__(self, settings: Settings, name: str, alias: str) -> None:
        """Asks the registry.

        Raises:
            LifecycleError: it does not answer, or has no such model.
        """
        self.name, self.alias = name, alias
        try:
            self._client: MlflowClient = connect(settings.tracking_uri, settings.registry_timeout_seconds)
        except TrainingError as error:
            raise LifecycleError(str(error)) from None
        self.refresh()

    def refresh(self) -> None:
        """Asks again.

        Raises:
            LifecycleError: there is no such model.
        """
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(self.name)
            versions = self._client.search_model_versions(
                f"name = '{self.name.replace(chr(39), chr(39) * 2)}'"
            )
        except MlflowException as error:
            raise LifecycleError(f"the registry has no model {self.name!r}: {reason(error)}") from None
        found = model.aliases.get(self.alias)
        self.current: str | None = str(found) if found is not None else None
        self._versions: dict[str, Any] = {str(version.version): version for version in versions}
        self.moves = read_moves(version.tags for version in versions)

    def check_version(self, version: str) -> None:
        """Refuses a version that is not registered.

        Raises:
            LifecycleError: names those that are.
        """
        if version not in self._versions:
            there = ", ".join(sorted(self._versions, key=int)) or "none"
            raise LifecycleError(f"model {self.name!r} has no version {version} (there are: {there})")

    def move(self, kind: str, target: str, why: str, audit_log: Path, results: str = "") -> Move:
        """Lets the alias point at a version, and records it.

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
            kind, self.name, self.alias, source=self.current, target=target, why=why, results=results
        )
        try:
            self._client.set_registered_model_alias(self.name, self.alias, target)
        except MlflowException as error:
            raise LifecycleError(f"the alias could not be moved: {reason(error)}") from None
        self.current = target
        try:
            self._client.set_model_version_tag(self.name, target, move.tag, encode(move))
            append(audit_log, move)
        except (MlflowException, OSError) as error:
            raise LifecycleError(
                f"{self.name}@{self.alias} is version {target} now, and that could not be recorded: {reason(error)}"
            ) from None
        self.moves.append(move)
        return move

    def take_back(self, to: str | None, why: str, audit_log: Path) -> None:
        """Undoes a move: lets the alias point where it did, or nowhere.

        Raises:
            LifecycleError: the registry refuses.
        """
        if to is not None:
            self.move("rollback", to, why, audit_log)
        else:
            self.unset_alias(self.alias)
            self.current = None

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
