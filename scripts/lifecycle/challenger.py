"""The challenger of a model during a promotion: its alias and its share of the requests."""

import shlex
from pathlib import Path

from scripts.lifecycle import LifecycleError, NotRecorded, Overtaken, StillThere
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
                f"version {self._before} is the challenger ({alias!r}) already; end it first: {self._by_hand}"
            )
        self._now = self._before
        self._percent: float | None = None
        """The last share; None if nothing was changed."""

    def give(self, percent: float) -> None:
        """Gives the version a share of the requests.

        Raises:
            Overtaken: somebody else has made another version the challenger.
            LifecycleError: the registry refuses.
        """
        self.check_ours()
        self._percent = percent
        with self._model.asking("the challenger could not be set") as client:
            # The exact number: it is compared with that of the services.
            client.set_registered_model_tag(self._model.name, CHALLENGER_PERCENT_TAG, repr(percent))
            client.set_registered_model_alias(self._model.name, self._alias, self._version)
        self._now = self._version

    @property
    def is_new(self) -> bool:
        """True if the model had no challenger before."""
        return self._before is None

    @property
    def left(self) -> str:
        """What remains if the registry does not restore the challenger, and the command that ends it."""
        return (
            f"VERSION {self._version} IS STILL THE CHALLENGER ({self._alias!r}) with {self._percent:g} % of the requests; "
            f"end it: {self._by_hand}"
        )

    @property
    def _by_hand(self) -> str:
        return f".venv/bin/python scripts/rollback.py --name {shlex.quote(self._model.name)} --challenger {self._alias}"

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
        if self._percent is None:
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


def end_challenger(model: RegisteredModel, why: str, audit_log: Path) -> None:
    """Removes the challenger's alias, which is recorded, and its share.

    Args:
        model: with the challenger's alias.
        why: in the user's words.
        audit_log: gets a line.

    Raises:
        NotRecorded: both were removed.
        StillThere: the alias was removed, and the share was not.
        Overtaken: somebody else has changed the challenger.
        LifecycleError: the registry refuses.
    """
    trouble = None
    try:
        model.remove("rollback", why, audit_log)
    except NotRecorded as error:
        trouble = error
    if CHALLENGER_PERCENT_TAG in model.tags:
        try:
            with model.asking(
                f"{model.where} was removed, but its tag {CHALLENGER_PERCENT_TAG} was not"
            ) as client:
                client.delete_registered_model_tag(model.name, CHALLENGER_PERCENT_TAG)
        except LifecycleError as error:
            raise StillThere(str(error)) from None
    if trouble is not None:
        raise trouble
