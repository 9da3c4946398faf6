"""The containers in manifests, whatever kind of object has them."""

from collections.abc import Iterator
from typing import Any

from scripts.deploying.kubectl import Document


def name_of(document: Document) -> str:
    """Returns an object's name for kubectl."""
    return f"{document['kind'].lower()}/{document['metadata']['name']}"


Containers = dict[tuple[str, ...], Document]
"""By their path in a manifest: keys, and names of list entries."""


def containers_of(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Document]]:
    """Yields each container in a manifest, and its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from containers_of(value, (*path, key))
    elif isinstance(node, list):
        for n, entry in enumerate(node):
            name = str(entry.get("name", n)) if isinstance(entry, dict) else str(n)
            if path[-1] in ("containers", "initContainers"):
                yield (*path, name), entry
            else:
                yield from containers_of(entry, (*path, name))
