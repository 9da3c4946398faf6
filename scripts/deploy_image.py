"""Applies an overlay of k8s/ with another image, and waits until its pods are ready.

    .venv/bin/python scripts/deploy_image.py staging --image registry.example/model-server:1.2.0
    .venv/bin/python scripts/deploy_image.py production --image registry.example/model-server@sha256:… --no-wait
    .venv/bin/python scripts/deploy_image.py production --image registry.example/model-server:1.2.0 --dry-run
    .venv/bin/python scripts/deploy_image.py production --image registry.example/model-server:1.2.0 --write
    .venv/bin/python scripts/deploy_image.py ../platform/model-server --image registry.example/model-server:1.2.0

--write puts the image into the manifests, to be committed, and applies nothing: for Argo CD and Flux, and so that the
next `kubectl apply -k` has it, too. Without it the files do not change: it applies a copy, which the cluster has
validated as a whole. Only pods of the image named by --name change; all others keep their image in the cluster. If the
overlay has a Rollout, it waits until all its pods are new or it is paused at a step; then run scripts/canary.py, as
after --no-wait. During a canary it applies only the stable image, which ends the canary. With --json it prints the
stable image from before, to roll back to, and whether all pods are `ready` with the new one.
Exit code 0 if applied, and ready or paused at a step, 1 if it failed or timed out, 2 with one line on stderr if nothing
was done, 130 after Ctrl-C and 143 after SIGTERM, without undoing what was applied.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.deploying.containers import Containers, containers_of, name_of  # noqa: E402  # needs the line above
from scripts.deploying.kubectl import Document, Kubectl, build_error, call, last_line  # noqa: E402  # the same
from scripts.deploying.kustomizations import copy_overlay, set_images  # noqa: E402  # the same
from scripts.deploying.workloads import find_workload  # noqa: E402  # the same
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, FAILED, OneLineParser, run, teller  # noqa: E402  # the same
from scripts.lifecycle.signals import Interrupted  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

MANIFESTS = ROOT / "k8s"

DEPLOYMENT = "model-server"
"""The one to wait for if no Deployment has the image."""

IMAGE = re.compile(
    r"(?P<name>[a-z0-9.-]+(?::\d+(?=/))?(?:/[a-z0-9._-]+)*)(?::(?P<tag>[\w.-]{1,128}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
"""Registry and name, tag, digest."""

NO_TAG = ":overlay"
"""The end of the images in the manifests, until an overlay's `images` replaces them."""

PLACEHOLDER = {"newName": "placeholder.invalid/image", "newTag": "told"}
"""Distinguishes the image to replace, while the manifests are built, from others that may be the same."""


def parse_arguments(arguments: Sequence[str] | None, _: Settings) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("overlay", type=find_overlay, help="folder in k8s/overlays, or the path of another")
    parser.add_argument(
        "--image", type=parse_image, required=True, help="registry/name:tag, registry/name@sha256:…, or both"
    )
    parser.add_argument(
        "--name",
        default="model-server",
        help="image to replace, by its name in `images` of a kustomization.yaml (%(default)s)",
    )
    parser.add_argument("--context", help="context of the kubeconfig (default: current)")
    parser.add_argument(
        "--timeout-seconds",
        type=int,
        default=1200,
        metavar="SECONDS",
        help="time for the pods to become ready (%(default)s)",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait for the pods")
    parser.add_argument(
        "--require", metavar="KIND", help="do nothing if the manifests have no object of this kind (Rollout)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be applied, without the cluster; comments at the top name what keeps its image",
    )
    parser.add_argument(
        "--write", action="store_true", help="write the image into the manifests, and apply nothing"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser.parse_args(arguments)


def find_overlay(text: str) -> Path:
    """Returns the folder of an overlay: by its name in k8s/overlays, else by its path.

    Raises:
        argparse.ArgumentTypeError: there is none.
    """
    overlays = MANIFESTS / "overlays"
    for folder in (overlays / text, Path(text)):
        if (folder / "kustomization.yaml").is_file():
            return folder.resolve()
    there = ", ".join(sorted(file.parent.name for file in overlays.glob("*/kustomization.yaml")))
    raise argparse.ArgumentTypeError(
        f"{text!r} is neither in k8s/overlays ({there}) nor a folder with a kustomization.yaml"
    )


def title_of(path: Path) -> str:
    """Returns a path as messages name it: below this repository, or in full."""
    root = MANIFESTS.parent
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def parse_image(text: str) -> dict[str, str]:
    """Returns an image as kustomize names it; if there is a digest, without the tag.

    Raises:
        argparse.ArgumentTypeError: it has neither tag nor digest, or is not an image.
    """
    found = IMAGE.fullmatch(text)
    if found is None and IMAGE.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} has capital letters; image names must be lower case")
    if found is None or not (found["tag"] or found["digest"]):
        raise argparse.ArgumentTypeError(f"{text!r} is not an image with a tag or a digest")
    exact = {"digest": found["digest"]} if found["digest"] else {"newTag": found["tag"]}
    return {"newName": found["name"], **exact}


def deploy(options: argparse.Namespace, _: Settings) -> tuple[int, dict[str, Any], list[str]]:
    """Deploys the image; returns exit code, facts and sentences.

    Raises:
        LifecycleError: nothing was done.
    """
    image, say = options.image, teller(options)
    documents = build(options.overlay, options.name)
    namespace = read_namespace(options.overlay)
    if options.require and not any(one["kind"] == options.require for one in documents):
        raise LifecycleError(f"{title_of(options.overlay)} has no {options.require} (which component does?)")
    reference = to_reference(image)
    facts = {"overlay": options.overlay.name, "namespace": namespace, "image": reference}
    if options.write:
        files = [title_of(file) for file in set_images(options.overlay, options.name, image)]
        return DONE, facts | {"done": True, "files": files}, [f"{reference} is in {', '.join(files)}"]
    kubectl = Kubectl(namespace, options.context)
    name, others = replace_placeholder(documents, reference)
    if others and not options.dry_run:
        for kept in keep_live_images(kubectl, others):
            say(f"{namespace}: {kept}")
    manifests = yaml.safe_dump_all(documents, sort_keys=False)
    if options.dry_run:
        keep = [name_of(document) for document, _ in others]
        said = [f"# Without the cluster: {one} keeps the image that it has there, if any." for one in keep]
        return DONE, facts | {"done": False, "keep": keep}, [*said, manifests]
    workload = find_workload(kubectl, documents, name)
    before = workload.stable_image()
    facts["before"] = before
    if trouble := workload.why_not(reference):
        raise LifecycleError(f"{namespace}: {trouble}")
    check_taken(kubectl, manifests, documents, namespace)
    try:
        applied = kubectl("apply", "--filename", "-", text=manifests)
    except Interrupted as reason:
        why = f"{reason} while it was applied: parts of it may be in the cluster"
        return reason.exit_code, facts | {"done": False, "why": why}, [f"{namespace}: {why}"]
    if applied.returncode:
        why = f"kubectl apply failed: {last_line(applied.stderr)}"
        return FAILED, facts | {"done": False, "why": why}, [f"{namespace}: {why}"]
    facts["done"] = True
    say(f"{namespace}: {reference} is applied; before it was {before or 'none'}")
    if options.no_wait:
        return DONE, facts, []
    outcome = workload.wait(options.timeout_seconds, lambda said: say(f"{namespace}: {said}"))
    facts |= {"ready": outcome.is_ready, "why": outcome.said}
    return DONE if outcome.is_well else FAILED, facts, [f"{namespace}: {outcome.said}"]


def read_namespace(overlay: Path) -> str:
    """Returns the namespace of an overlay.

    Raises:
        LifecycleError: it names none.
    """
    file = overlay / "kustomization.yaml"
    namespace = yaml.safe_load(file.read_text()).get("namespace")
    if not namespace:
        raise LifecycleError(f"{title_of(file)} names no `namespace`")
    return str(namespace)


def check_taken(kubectl: Kubectl, manifests: str, documents: Sequence[Document], namespace: str) -> None:
    """Has the cluster validate all manifests, so that they are not applied in part.

    Raises:
        LifecycleError: it rejects one.
    """
    checked = kubectl("apply", "--dry-run=server", "--filename", "-", text=manifests)
    if not checked.returncode:
        return
    # The first time, the manifests create the namespace, and nothing can be validated in it yet.
    lines = [line for line in checked.stderr.splitlines() if line.startswith(("Error", "error"))]
    is_first = any(one["kind"] == "Namespace" for one in documents) and all(
        f'namespaces "{namespace}" not found' in line for line in lines
    )
    if not lines or not is_first:
        raise LifecycleError(f"{namespace}: the cluster rejects it: {last_line(checked.stderr)}")


def build(overlay: Path, name: str) -> list[Document]:
    """Returns the manifests of an overlay, with `PLACEHOLDER` for the image of that name.

    Raises:
        LifecycleError: nothing in them has that image, a container keeps a placeholder, or kubectl cannot build them.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = copy_overlay(overlay, Path(folder))
        if not set_images(copy, name, PLACEHOLDER):
            raise LifecycleError(
                f"{title_of(overlay)} and what it includes have no image named {name!r} (--name)"
            )
        built = call(["kubectl", "kustomize", str(copy)])
    if built.returncode:
        why = build_error(built.stderr).replace(f"{Path(folder).resolve()}/", "")
        raise LifecycleError(f"{title_of(overlay)} cannot be built: {why}")
    if to_reference(PLACEHOLDER) not in built.stdout:
        raise LifecycleError(f"nothing in {title_of(overlay)} runs the image {name!r} (--name)")
    documents = [document for document in yaml.safe_load_all(built.stdout) if document]
    for document in documents:
        for _, container in containers_of(document):
            if container["image"].endswith(NO_TAG):
                raise LifecycleError(
                    f"{title_of(overlay)}: {name_of(document)} runs {container['image']!r}, a placeholder; "
                    f"add {container['image'].removesuffix(NO_TAG)!r} to `images` of its kustomization.yaml"
                )
    return documents


def replace_placeholder(
    documents: Sequence[Document], reference: str
) -> tuple[str, list[tuple[Document, Containers]]]:
    """Gives the image to the containers with `PLACEHOLDER`; returns their Deployment, and the other containers."""
    name, others = DEPLOYMENT, []
    for document in documents:
        untold = dict(containers_of(document))
        for path, container in list(untold.items()):
            if container["image"] == to_reference(PLACEHOLDER):
                container["image"] = reference
                del untold[path]
                if document["kind"] == "Deployment":
                    name = str(document["metadata"]["name"])
        if untold:
            others.append((document, untold))
    return name, others


def keep_live_images(kubectl: Kubectl, others: Sequence[tuple[Document, Containers]]) -> Iterator[str]:
    """Gives containers the image that they have in the cluster; yields a sentence for each document that differs.

    A canary's image is only in the cluster: applying the manifests' would undo it.

    Raises:
        LifecycleError: the cluster cannot be queried.
    """
    for document, containers in others:
        target = name_of(document)
        live = dict(containers_of(kubectl.get(target) or {}))
        for path, container in containers.items():
            image = live.get(path, container)["image"]
            if image != container["image"]:
                yield f"{target} keeps {image}"
                container["image"] = image


def to_reference(image: dict[str, str]) -> str:
    """Returns an image as a manifest names it."""
    if "digest" in image:
        return f"{image['newName']}@{image['digest']}"
    return f"{image['newName']}:{image['newTag']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("deploy_image.py", deploy, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
