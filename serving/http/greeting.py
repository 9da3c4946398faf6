"""What the terminal says once a model answers: where, and one command that can be pasted."""

import shlex

import msgspec

from serving.traffic.loaded import LoadedModel


def greeting(model: LoadedModel, url: str) -> str:
    """Returns the lines; the `curl` sends the first example row as it stands."""
    first = msgspec.json.decode(model.examples)["instances"][:1]
    body = msgspec.json.encode({"instances": first}).decode()
    return (
        f"\n{model.manifest.name} version {model.manifest.version} answers on {url}\n"
        f"try it:  curl -s {url}/v1/predict -H 'Content-Type: application/json' -d {shlex.quote(body)}\n"
        f"see:     {url}/ (API), {url}/v1/models, {url}/metrics\n"
    )
