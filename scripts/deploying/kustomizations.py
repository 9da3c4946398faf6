"""The `kustomization.yaml` files that an overlay is made of, and the images in them."""

import os
import re
import shutil
from pathlib import Path

import yaml

from scripts.lifecycle import LifecycleError


def included(folder: Path) -> set[Path]:
    """Returns the files of a folder and of all folders that it includes, such as its components.

    Raises:
        LifecycleError: one that it includes by its path does not exist.
    """
    found: set[Path] = set()
    left = [folder]
    while left:
        file = left.pop().resolve() / "kustomization.yaml"
        if file.is_file() and file not in found:
            found.add(file)
            said = yaml.safe_load(file.read_text()) or {}
            names = [*(said.get("resources") or []), *(said.get("components") or [])]
            for name in names:
                # Checked here, because kustomize would name the copy. Other names may be URLs.
                if name.startswith(".") and not (file.parent / name).exists():
                    raise LifecycleError(f"{file} includes {name}, which does not exist")
            left += [file.parent / name for name in names]
    return found


def copy_overlay(overlay: Path, target: Path) -> Path:
    """Copies an overlay with all folders that it includes; returns the copy of the overlay."""
    folders = {file.parent for file in included(overlay)}
    top = Path(os.path.commonpath(folders))
    for folder in folders:
        shutil.copytree(
            folder,
            target / folder.relative_to(top),
            ignore=shutil.ignore_patterns(".git"),
            dirs_exist_ok=True,
        )
    return target / overlay.relative_to(top)


def set_images(overlay: Path, name: str, image: dict[str, str]) -> list[Path]:
    """Writes an image into each kustomization.yaml of an overlay that has one of that name; returns these files.

    Args:
        overlay: its folder. Folders that it includes are changed, too, for all overlays.
        name: the image's, in `images` of a kustomization.yaml.
        image: as `parse_image` returns it.

    Raises:
        LifecycleError: a file cannot be changed in place.
    """
    changed = []
    section = re.compile(r"^images:\n(?:[ -].*\n)+", re.MULTILINE)
    entry = re.compile(
        rf"^(?P<indent> *)- name: {re.escape(name)}\n(?:(?P=indent)  \w+: .*\n)*", re.MULTILINE
    )
    for file in sorted(included(overlay)):
        text = file.read_text()
        if not any(one["name"] == name for one in yaml.safe_load(text).get("images") or []):
            continue
        found = section.search(text)
        old = found[0] if found else ""
        fields = "".join(f'\\g<indent>  {key}: "{value}"\n' for key, value in image.items())
        new = entry.sub(rf"\g<indent>- name: {name}\n{fields}", old)
        # A YAML library would lose the comments.
        text = text.replace(old, new)
        if {"name": name, **image} not in yaml.safe_load(text)["images"]:
            raise LifecycleError(f"{file}: expected `images` as kustomize writes it, `- name: …` first")
        file.write_text(text)
        changed.append(file)
    return changed
