"""The terminal's greeting once a model is loaded: the URL, and a command to paste."""

import shlex

import msgspec

from serving.protocols.openapi import made_up_body
from serving.traffic.loaded import LoadedModel


def examples(model: LoadedModel, *, is_published: bool) -> bytes:
    """Returns a request body that may be public: the model's example, or one generated from the signature."""
    return model.examples if is_published else made_up_body(model.schema)


def greeting(model: LoadedModel, url: str, *, is_published: bool = True) -> str:
    """Returns the lines; `curl` sends the first example row unchanged."""
    first = msgspec.json.decode(examples(model, is_published=is_published))["instances"][:1]
    body = msgspec.json.encode({"instances": first}).decode()
    return (
        f"\n{model.manifest.name} version {model.manifest.version} answers on {url}\n"
        f"try it:  curl -s {url}/v1/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}\n"
        f"see:     {url}/ (API), {url}/dashboard, {url}/v1/models, {url}/metrics\n"
    )
