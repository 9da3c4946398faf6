"""The response of `GET /v1/models`."""

from typing import Any

import numpy as np

from serving.model.schema import Column, Schema
from serving.traffic.loaded import LoadedModel
from serving.traffic.router import Router


def describe_models(router: Router) -> dict[str, Any]:
    """Returns the whole response."""
    routes = router.routes
    described = [
        {
            "role": route.role,
            "percent": routes.share(route),
            "semantic_version": route.semantic_version,
            **describe_model(route.model),
        }
        for route in routes.all
    ]
    reason = {} if described else {"reason": router.reason}
    return {"ready": bool(described), **reason, **describe_state(router), "models": described}


def describe_model(model: LoadedModel) -> dict[str, Any]:
    """Returns the description of a loaded model."""
    manifest = model.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "run_id": manifest.run_id,
        "digest": manifest.digest,
        "task": manifest.task,
        "classes": manifest.classes,
        "flavors": manifest.flavors,
        "runtime": model.runtime_name,
        "native_reason": model.native_reason,
        "parity": manifest.parity,
        "batching": describe_calls(model),
        "preprocessing_sha256": manifest.preprocessing_sha256,
        "libraries": manifest.libraries,
        "prepared_at": manifest.prepared_at,
        "loaded_at": to_iso(model.since),
        "signature": describe_schema(model.schema),
    }


def describe_state(router: Router) -> dict[str, Any]:
    """Returns the result of the last sync with the registry."""
    state, asked = router.state, router.registry_asked_at
    return {
        "aliases": router.aliases,
        "stale": state.stale or None,
        "held_back": state.held_back,
        "registry_asked_at": to_iso(asked) if asked else None,
        "previous": state.previous,
        "refused": state.refused,
        "autopilot": state.autopilot,
    }


def to_iso(seconds: float) -> str:
    """Returns a time since 1970 as ISO 8601 in UTC, to the second."""
    return np.datetime64(int(seconds), "s").item().isoformat() + "+00:00"


def describe_calls(model: LoadedModel) -> dict[str, Any]:
    """Returns the cost of model calls in this worker, and the batching chosen from it."""
    policy = model.batcher.policy
    return {
        "shared_calls": policy.batches or policy.turn_rows > 0,
        "inline_rows": policy.inline_rows,
        "max_batch_rows": policy.max_batch_rows,
        "rows_are_independent": model.manifest.is_rowwise,
        "call_ms": {str(rows): round(seconds * 1e3, 4) for rows, seconds in model.costs.seconds.items()},
    }


def describe_schema(schema: Schema) -> dict[str, Any]:
    """Returns the signature, readable without MLflow.

    A column that is `required` has to be there, and may be null if it is `nullable`.
    """

    def column(spec: Column) -> dict[str, Any]:
        return {
            "name": spec.name,
            "type": str(spec.type),
            "required": spec.required,
            "nullable": spec.may_be_missing,
        }

    return {
        "form": schema.form.value,
        "inputs": [column(spec) for spec in schema.columns],
        "params": [
            {"name": p.name, "type": str(p.type), "default": p.default, "list": p.is_list}
            for p in schema.params
        ],
    }
