"""Applies an overlay of k8s/ with another image, and waits until its pods are ready.

    python scripts/deploy_image.py staging --image registry.example/model-server:1.2.0
    python scripts/deploy_image.py production --image registry.example/model-server@sha256:… --no-wait
    python scripts/deploy_image.py production --image registry.example/model-server:1.2.0 --dry-run

The overlay's files stay as they are; what is applied is a copy. --no-wait is for what goes on step by step: then comes
scripts/canary.py. With --json it tells which image was there before, to go back to.
Exit code 0 when it is applied and ready, 1 when it is not, or not in time, 2 with one line on stderr when nothing was done.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.lifecycle import LifecycleError  # noqa: E402  # needs the line above
from scripts.lifecycle.command import DONE, FAILED, OneLineParser, run, teller  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

MANIFESTS = ROOT / "k8s"

WORKLOAD = "deployment/model-server"
"""Whose pods are waited for, and whose image is the one before."""


def parse_arguments(arguments: Sequence[str] | None, _: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    overlays = sorted(folder.name for folder in (MANIFESTS / "overlays").iterdir() if folder.is_dir())
    parser.add_argument("overlay", choices=overlays, help="of k8s/overlays")
    parser.add_argument(
        "--image", type=parse_image, required=True, help="registry/name:tag, registry/name@sha256:…, or both"
    )
    parser.add_argument(
        "--name",
        default="model-server",
        help="which image of the manifests it replaces, as `images` of a kustomization.yaml calls it (%(default)s)",
    )
    parser.add_argument("--context", help="of the kubeconfig (its current one)")
    parser.add_argument(
        "--timeout-seconds",
        type=int,
        default=1200,
        metavar="SECONDS",
        help="in which the pods have to be ready (%(default)s)",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for them")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be applied, and apply nothing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    return parser.parse_args(arguments)


def parse_image(text: str) -> dict[str, str]:
    """Returns an image as kustomize names it; where there is a digest, the tag is left out.

    Raises:
        argparse.ArgumentTypeError: it has neither tag nor digest, or is no image at all.
    """
    found = re.fullmatch(
        r"(?P<name>[a-z0-9.-]+(?::\d+(?=/))?(?:/[a-z0-9._-]+)*)(?::(?P<tag>[\w.-]{1,128}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
        text,
        re.ASCII,
    )
    if found is None or not (found["tag"] or found["digest"]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an image with a tag or a digest")
    exact = {"digest": found["digest"]} if found["digest"] else {"newTag": found["tag"]}
    return {"newName": found["name"], **exact}


def deploy(options: argparse.Namespace, _: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Does it; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing was done.
    """
    image, say = options.image, teller(options)
    manifests = build(options.overlay, options.name, image)
    documents = [document for document in yaml.safe_load_all(manifests) if document]
    namespace = next(one["metadata"]["name"] for one in documents if one["kind"] == "Namespace")
    reference = to_reference(image)
    facts = {"overlay": options.overlay, "namespace": namespace, "image": reference}
    if options.dry_run:
        return DONE, facts | {"done": False}, [manifests]
    kubectl = [
        "kubectl",
        *(["--context", options.context] if options.context else []),
        "--namespace",
        namespace,
    ]
    before = current_image(kubectl)
    facts["before"] = before
    applied = call([*kubectl, "apply", "--filename", "-"], manifests)
    if applied.returncode:
        why = f"kubectl apply failed: {last_line(applied.stderr)}"
        return FAILED, facts | {"done": False, "why": why}, [f"{namespace}: {why}"]
    say(f"{namespace}: {reference} is applied; before it was {before or 'none'}")
    if options.no_wait:
        return DONE, facts | {"done": True}, []
    waited = call([*kubectl, "rollout", "status", WORKLOAD, f"--timeout={options.timeout_seconds}s"])
    if waited.returncode:
        why = last_line(waited.stderr) or "it is not ready"
        return FAILED, facts | {"done": True, "why": why}, [f"{namespace}: {why}"]
    return DONE, facts | {"done": True}, [f"{namespace}: its pods are ready"]


def build(overlay: str, name: str, image: dict[str, str]) -> str:
    """Returns the manifests of an overlay, with another image.

    Raises:
        LifecycleError: nothing in them has that image, or kubectl cannot build them.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "k8s")
        shutil.copytree(MANIFESTS, copy)
        n_set = sum(
            set_image(file, name, image)
            for file in copy.rglob("kustomization.yaml")
            if copy / "overlays" not in file.parents or copy / "overlays" / overlay in file.parents
        )
        if not n_set:
            raise LifecycleError(f"no kustomization.yaml has an image of the name {name!r} (--name)")
        built = call(["kubectl", "kustomize", str(copy / "overlays" / overlay)])
    if built.returncode:
        raise LifecycleError(f"k8s/overlays/{overlay} cannot be built: {last_line(built.stderr)}")
    if to_reference(image) not in built.stdout:
        raise LifecycleError(
            f"k8s/overlays/{overlay} has nothing in it that runs the image {name!r} (--name)"
        )
    return built.stdout


def set_image(file: Path, name: str, image: dict[str, str]) -> bool:
    """Writes an image into a kustomization.yaml that has one of that name; returns whether it has."""
    content = yaml.safe_load(file.read_text())
    entries = [entry for entry in content.get("images", []) if entry["name"] == name]
    for entry in entries:
        for key in ("newName", "newTag", "digest"):
            entry.pop(key, None)
        entry.update(image)
    if entries:
        file.write_text(yaml.safe_dump(content, sort_keys=False))
    return bool(entries)


def to_reference(image: dict[str, str]) -> str:
    """Returns an image as a manifest names it."""
    if "digest" in image:
        return f"{image['newName']}@{image['digest']}"
    return f"{image['newName']}:{image['newTag']}"


def current_image(kubectl: Sequence[str]) -> str | None:
    """Returns the image that runs; None where there is none yet.

    Raises:
        LifecycleError: the cluster cannot be asked.
    """
    path = "jsonpath={.spec.template.spec.containers[0].image}"
    found = call([*kubectl, "get", WORKLOAD, "--ignore-not-found", "--output", path])
    if found.returncode:
        raise LifecycleError(f"the cluster cannot be asked: {last_line(found.stderr)}")
    return found.stdout.strip() or None


def call(command: Sequence[str], text: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Runs kubectl.

    Raises:
        LifecycleError: there is none.
    """
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    except FileNotFoundError:
        raise LifecycleError("kubectl is not installed") from None


def last_line(text: str) -> str:
    """Returns what a command said last."""
    return (text.strip().splitlines() or [""])[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("deploy_image.py", deploy, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
