"""An HTTPRoute of the Gateway API."""

from collections.abc import Mapping, Sequence
from typing import Any

from scripts.lifecycle import LifecycleError
from scripts.rollout.cluster import Document, Kind
from scripts.rollout.weighted import Weighted, Weights


class HTTPRoute(Weighted):
    """The weights of two Services in each rule that names both."""

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
        """Returns the backends of the rules that split traffic."""
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
