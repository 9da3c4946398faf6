"""A sealed Bento: it contains the prepared model and needs no registry."""

from pathlib import Path

import yaml

from serving.errors import StorageError


def find_sealed(source: Path) -> tuple[Path, str] | None:
    """Returns the model store of the Bento that contains the code, and the tag of its model; None without a model.

    Args:
        source: the folder of `service.py`.

    Raises:
        StorageError: the Bento names several models, or one that is not in it.
    """
    info = source.parent / "bento.yaml"
    if source.name != "src" or not info.is_file():
        return None
    tags = [str(model["tag"]) for model in yaml.safe_load(info.read_text()).get("models") or []]
    if not tags:
        return None
    if len(tags) > 1:
        raise StorageError(
            f"the Bento holds {len(tags)} models, expected one: {', '.join(tags)}; build it with one"
        )
    store = source.parent / "models"
    if not (store / tags[0].replace(":", "/") / "manifest.json").is_file():
        return None
    return store, tags[0]
