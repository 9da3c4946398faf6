"""The response of `GET /v1/drift`."""

from typing import Any

from serving.traffic.router import Router


def describe_drift(router: Router) -> dict[str, Any]:
    """Returns the drift of each loaded model; without one, the reason."""
    models = [
        {
            "name": route.model.manifest.name,
            "version": route.model.manifest.version,
            "role": route.role,
            **(
                route.model.drift.describe()
                if route.model.drift
                else {"note": "off: SERVING_MONITORED_FEATURES=0"}
            ),
        }
        for route in router.routes.all
    ]
    return {"models": models} if models else {"models": models, "reason": router.reason}
