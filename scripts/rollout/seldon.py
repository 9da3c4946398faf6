"""A SeldonDeployment of Seldon Core 1."""

from collections.abc import Mapping
from typing import Any

from scripts.rollout.cluster import Document, Kind
from scripts.rollout.weighted import Weighted, Weights


class SeldonDeployment(Weighted):
    """The traffic of two predictors."""

    kind = Kind("SeldonDeployment", "machinelearning.seldon.io", "v1", "seldondeployments")

    @staticmethod
    def _predictors(document: Document) -> list[dict[str, Any]]:
        """Returns the predictors that answer callers; a shadow's answers are discarded."""
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
        # Seldon calls a predictor's Deployments NAME-PREDICTOR-NUMBER-CONTAINERS. Without the containers, the pattern
        # of a predictor `main` would match pods of `main-2`.
        (predictor,) = (each for each in self._predictors(document) if each["name"] == name)
        parts = "|".join(
            part.get("metadata", {}).get("name")
            or "-".join(container["name"] for container in part["spec"]["containers"])
            for part in predictor.get("componentSpecs", [])
        )
        return f'{self._namespace},pod=~"{self._name}-{name}-[0-9]+-(?:{parts or ".+"})-.+"'
