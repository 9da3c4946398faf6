"""Chooses the loaded model that answers a request."""

import hashlib
import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Self

from serving.errors import Forbidden, RouteNotFound, ServingError, VersionNotFound
from serving.monitoring.finished import Observer
from serving.traffic.loaded import LoadedModel

CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"


class Choice(NamedTuple):
    """What of a request chooses the model."""

    key: bytes | None = None
    """`X-Routing-Key`: requests with the same one get the same version."""
    version: str | None = None
    """`X-Model-Version`: a version number, an alias, a role, or a semantic version or a prefix of it: `2`, `2.1`."""
    name: str | None = None
    """The registered model's, if it is in the path."""


NO_CHOICE = Choice()


class Route:
    """A loaded model in a role. A `with` statement keeps the model loaded."""

    def __init__(
        self,
        model: LoadedModel,
        role: str,
        semantic_version: str | None = None,
        observers: tuple[Observer, ...] = (),
    ) -> None:
        self.model = model
        self.role = role
        self.semantic_version = semantic_version
        self.observers = (*model.observers(role), *observers)
        manifest = model.manifest
        self.labels = (manifest.name, manifest.version, role)
        self.headers = [(b"x-model-version", manifest.version.encode()), (b"x-model-role", role.encode())]

    def __enter__(self) -> Self:
        self.model.__enter__()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.model.__exit__(kind, error, trace)
        if isinstance(error, ServingError):
            error.model = self.labels


class Routes:
    """An immutable set of routes; all of them change at once."""

    def __init__(
        self,
        champion: LoadedModel | None = None,
        *,
        challenger: LoadedModel | None = None,
        challenger_percent: float = 0,
        shadow: LoadedModel | None = None,
        shadow_percent: float = 0,
        names: dict[str, str] | None = None,
        semantic_versions: Mapping[str, str] = MappingProxyType({}),
        observers: tuple[Observer, ...] = (),
    ) -> None:
        """Takes the models.

        Args:
            champion: answers.
            challenger: answers a share of the requests instead.
            challenger_percent: 0 to 100.
            shadow: gets a copy of a share of the requests, after the answer is sent.
            shadow_percent: 0 to 100.
            names: the role by alias, if requests may choose; else None.
            semantic_versions: by tag; default: the one that the model was prepared with.
            observers: of the answers of every model.
        """

        def route(model: LoadedModel | None, role: str) -> Route | None:
            if model is None:
                return None
            semantic_version = semantic_versions.get(model.tag, model.manifest.semantic_version)
            return Route(model, role, semantic_version, observers)

        self.champion = route(champion, CHAMPION)
        self.challenger = route(challenger, CHALLENGER)
        self.shadow = route(shadow, SHADOW)
        self.challenger_percent = challenger_percent if challenger else 0
        self.shadow_percent = shadow_percent if shadow else 0
        self._names = names

    @property
    def all(self) -> list[Route]:
        """The routes that are set."""
        return [route for route in (self.champion, self.challenger, self.shadow) if route is not None]

    def share(self, route: Route) -> float:
        """Returns the percent of the requests that a route gets."""
        if route.role == SHADOW:
            return self.shadow_percent
        return self.challenger_percent if route.role == CHALLENGER else 100 - self.challenger_percent

    def choose(self, choice: Choice) -> Route:
        """Returns the route of a request; requires a champion.

        Raises:
            Forbidden: the request names a version, which is disabled.
            VersionNotFound: it names one that is not loaded.
            RouteNotFound: it names another model.
        """
        assert self.champion is not None
        if choice.name is not None and choice.name != self.champion.model.manifest.name:
            raise RouteNotFound("the model in the path is not served here; /v1/models has the name")
        if choice.version is not None:
            return self._named(choice.version)
        if self.challenger_percent and self._fraction(choice.key) * 100 < self.challenger_percent:
            assert self.challenger is not None
            return self.challenger
        return self.champion

    def _fraction(self, key: bytes | None) -> float:
        """A number in [0, 1): the same for a key in every worker and replica, else random."""
        if key is None:
            return random.random()  # noqa: S311  # no secret depends on it
        assert self.champion is not None
        # Includes the model's name, so that each model's challenger gets different callers.
        digest = hashlib.blake2b(
            key, digest_size=8, person=_person(self.champion.model.manifest.name)
        ).digest()
        return int.from_bytes(digest, "big") / 2**64

    def _named(self, name: str) -> Route:
        if self._names is None:
            raise Forbidden("choosing a version is disabled (SERVING_ALLOW_VERSION_CHOICE)")
        for route in self.all:
            if name in (route.model.manifest.version, route.role) or self._names.get(name) == route.role:
                return route
        for route in self.all:
            if is_within(route.semantic_version, name):
                return route
        loaded = ", ".join(f"{describe(route)} ({route.role})" for route in self.all)
        raise VersionNotFound(f"the version in X-Model-Version is not loaded; expected one of {loaded}")

    def mirrors(self) -> bool:
        """Whether this request is copied to the shadow; drawn at random."""
        return self.shadow_percent > 0 and random.random() * 100 < self.shadow_percent  # noqa: S311  # the same


def is_within(semantic_version: str | None, asked: str) -> bool:
    """Whether a version such as `2.1.0` matches `2`, `2.1` or `2.1.0`, each with or without a `v`."""
    return semantic_version is not None and f"{semantic_version}.".startswith(f"{asked.removeprefix('v')}.")


def describe(route: Route) -> str:
    """Returns the number and semantic version of a route."""
    number = route.model.manifest.version
    return number if route.semantic_version is None else f"{number}, {route.semantic_version}"


def _person(name: str) -> bytes:
    return hashlib.blake2b(name.encode(), digest_size=16).digest()
