"""The challenger of a model during a promotion: its alias and its share of the requests."""

from scripts.lifecycle import LifecycleError, Overtaken
from scripts.lifecycle.placement import name_of
from scripts.lifecycle.registry import RegisteredModel
from serving.prepare.registry.resolution import CHALLENGER_PERCENT_TAG


class Challenger:
    """The alias of the challenger and the tag with its share; both can be restored."""

    def __init__(self, model: RegisteredModel, alias: str, version: str) -> None:
        """Reads them from the registry.

        Args:
            model: the registered model.
            alias: of the challenger, which services follow.
            version: to make the challenger; it may be that already.

        Raises:
            LifecycleError: it does not answer, or another version is the challenger.
        """
        self._model, self._alias, self._version = model, alias, version
        self._before, self._tag = self._read()
        if self._before not in {None, version}:
            raise LifecycleError(
                f"version {self._before} is the challenger ({alias!r}) already; remove that alias first"
            )
        self._now = self._before
        self._is_touched = False

    def give(self, percent: float) -> None:
        """Gives the version a share of the requests.

        Raises:
            Overtaken: somebody else has made another version the challenger.
            LifecycleError: the registry refuses.
        """
        self.check_ours()
        self._is_touched = True
        with self._model.asking("the challenger could not be set") as client:
            # The exact number: it is compared with that of the services.
            client.set_registered_model_tag(self._model.name, CHALLENGER_PERCENT_TAG, repr(percent))
            client.set_registered_model_alias(self._model.name, self._alias, self._version)
        self._now = self._version

    def check_ours(self) -> None:
        """Checks that nobody else has changed the challenger since.

        Raises:
            Overtaken: somebody has.
            LifecycleError: the registry does not answer.
        """
        self._check_is_one_of(self._now, self._version)

    def _check_is_one_of(self, *allowed: str | None) -> None:
        now, _ = self._read()
        if now not in allowed:
            raise Overtaken(
                f"the challenger ({self._alias!r}) is {name_of(now)} by now: somebody else has changed it; "
                "left unchanged"
            )

    def put_back(self, *, is_promoted: bool = False) -> bool:
        """Restores alias and tag; if the version was promoted, removes the alias.

        Returns:
            False if nothing was changed.

        Raises:
            Overtaken: somebody else has changed the challenger.
            LifecycleError: the registry refuses.
        """
        if not self._is_touched:
            return False
        self._check_is_one_of(self._version, self._before, None)
        name = self._model.name
        with self._model.asking(f"the challenger ({self._alias!r}) could not be restored") as client:
            if self._before is None or is_promoted:
                client.delete_registered_model_alias(name, self._alias)
            if self._tag is not None:
                client.set_registered_model_tag(name, CHALLENGER_PERCENT_TAG, self._tag)
            elif CHALLENGER_PERCENT_TAG in client.get_registered_model(name).tags:
                client.delete_registered_model_tag(name, CHALLENGER_PERCENT_TAG)
        return True

    def _read(self) -> tuple[str | None, str | None]:
        with self._model.asking(f"the challenger ({self._alias!r}) could not be read") as client:
            model = client.get_registered_model(self._model.name)
        found = model.aliases.get(self._alias)
        return str(found) if found is not None else None, model.tags.get(CHALLENGER_PERCENT_TAG)
