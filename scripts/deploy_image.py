"""Applies an overlay of k8s/ with another image, and waits until its pods are ready.

    .venv/bin/python scripts/deploy_image.py staging --image registry.example/model-server:1.2.0
    .venv/bin/python scripts/deploy_image.py production --image registry.example/model-server@sha256:… --no-wait
    .venv/bin/python scripts/deploy_image.py production --image registry.example/model-server:1.2.0 --dry-run
    .venv/bin/python scripts/deploy_image.py production --image registry.example/model-server:1.2.0 --write

With --write the image goes into the manifests, to be committed, and nothing is applied: for Argo CD and Flux, and so
that the next `kubectl apply -k` brings it, too. Else the files stay as they are; what is applied is a copy, which the
cluster has checked as a whole before. Only the pods of the image that --name says get another one: all others keep
what they have in the cluster. Where the overlay has a Rollout, that one is waited for, until all pods are new or it
stands at a step: then comes scripts/canary.py, as after --no-wait. In the middle of a canary only the stable image is
applied, which ends it. With --json it tells which image was stable before, to go back to, and whether all pods are
`ready` with the new one.
Exit code 0 when it is applied, and ready or at a step, 1 when it is not, or not in time, 2 with one line on stderr when
nothing was done, 130 after Ctrl-C and 143 after SIGTERM, with what was applied left as it is.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.deploying.kubectl import Document, Kubectl, call, last_line  # noqa: E402  # needs the line above
from scripts.deploying.kustomizations import set_images  # noqa: E402  # the same
from scripts.deploying.workloads import find_workload  # noqa: E402  # the same
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, FAILED, OneLineParser, run, teller  # noqa: E402  # the same
from scripts.lifecycle.signals import Interrupted  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

MANIFESTS = ROOT / "k8s"

DEPLOYMENT = "model-server"
"""Whose pods are waited for where the image is in no Deployment."""

IMAGE = re.compile(
    r"(?P<name>[a-z0-9.-]+(?::\d+(?=/))?(?:/[a-z0-9._-]+)*)(?::(?P<tag>[\w.-]{1,128}))?(?:@(?P<digest>sha256:[0-9a-f]{64}))?",
    re.ASCII,
)
"""Registry and name, tag, digest."""

NO_TAG = ":overlay"
"""The end of the images in the manifests, until an overlay's `images` replaces them."""

PLACEHOLDER = {"newName": "placeholder.invalid/image", "newTag": "told"}
"""Tells, while the manifests are built, the image that is replaced from others that may be the same."""


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
        "--require", metavar="KIND", help="do nothing where the manifests have nothing of this kind (Rollout)"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print what would be applied, and ask no cluster: what keeps its image is named at the top",
    )
    parser.add_argument("--write", action="store_true", help="write it into the manifests, and apply nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of sentences")
    return parser.parse_args(arguments)


def parse_image(text: str) -> dict[str, str]:
    """Returns an image as kustomize names it; where there is a digest, the tag is left out.

    Raises:
        argparse.ArgumentTypeError: it has neither tag nor digest, or is no image at all.
    """
    found = IMAGE.fullmatch(text)
    if found is None and IMAGE.fullmatch(text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} has capital letters; names of images are lower case")
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
    documents = build(options.overlay, options.name)
    namespace = read_namespace(options.overlay)
    if options.require and not any(one["kind"] == options.require for one in documents):
        raise LifecycleError(
            f"k8s/overlays/{options.overlay} has no {options.require} (which component does?)"
        )
    reference = to_reference(image)
    facts = {"overlay": options.overlay, "namespace": namespace, "image": reference}
    if options.write:
        files = [
            str(file.relative_to(MANIFESTS.parent))
            for file in set_images(MANIFESTS / "overlays" / options.overlay, options.name, image)
        ]
        return DONE, facts | {"done": True, "files": files}, [f"{reference} is in {', '.join(files)}"]
    kubectl = Kubectl(namespace, options.context)
    name, others = replace_placeholder(documents, reference)
    if others and not options.dry_run:
        for kept in keep_live_images(kubectl, others):
            say(f"{namespace}: {kept}")
    manifests = yaml.safe_dump_all(documents, sort_keys=False)
    if options.dry_run:
        keep = [name_of(document) for document, _ in others]
        said = [f"# No cluster was asked: {one} keeps the image that it has there, if any." for one in keep]
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
        why = f"{reason} while it was applied: a part of it may be there"
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


def read_namespace(overlay: str) -> str:
    """Returns where an overlay goes.

    Raises:
        LifecycleError: it does not say.
    """
    file = MANIFESTS / "overlays" / overlay / "kustomization.yaml"
    namespace = yaml.safe_load(file.read_text()).get("namespace")
    if not namespace:
        raise LifecycleError(f"k8s/overlays/{overlay}/kustomization.yaml names no `namespace`")
    return str(namespace)


def check_taken(kubectl: Kubectl, manifests: str, documents: Sequence[Document], namespace: str) -> None:
    """Has the cluster say whether it would take all of the manifests, so that not a half of them is applied.

    Raises:
        LifecycleError: it would not.
    """
    checked = kubectl("apply", "--dry-run=server", "--filename", "-", text=manifests)
    if not checked.returncode:
        return
    # The first time the namespace comes with the manifests, and nothing can be checked in it yet.
    lines = [line for line in checked.stderr.splitlines() if line.startswith(("Error", "error"))]
    is_first = any(one["kind"] == "Namespace" for one in documents) and all(
        f'namespaces "{namespace}" not found' in line for line in lines
    )
    if not lines or not is_first:
        raise LifecycleError(f"{namespace}: the cluster does not take it: {last_line(checked.stderr)}")


def build(overlay: str, name: str) -> list[Document]:
    """Returns the manifests of an overlay, with `PLACEHOLDER` for the image of that name.

    Raises:
        LifecycleError: nothing in them has that image, one has none, or kubectl cannot build them.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "k8s")
        shutil.copytree(MANIFESTS, copy)
        if not set_images(copy / "overlays" / overlay, name, PLACEHOLDER):
            raise LifecycleError(
                f"k8s/overlays/{overlay}, with what it includes, has no image of the name {name!r} (--name)"
            )
        built = call(["kubectl", "kustomize", str(copy / "overlays" / overlay)])
    if built.returncode:
        raise LifecycleError(f"k8s/overlays/{overlay} cannot be built: {last_line(built.stderr)}")
    if to_reference(PLACEHOLDER) not in built.stdout:
        raise LifecycleError(
            f"k8s/overlays/{overlay} has nothing in it that runs the image {name!r} (--name)"
        )
    documents = [document for document in yaml.safe_load_all(built.stdout) if document]
    for document in documents:
        for _, container in containers_of(document):
            if container["image"].endswith(NO_TAG):
                raise LifecycleError(
                    f"k8s/overlays/{overlay}: {name_of(document)} runs {container['image']!r}, which is no image yet; "
                    f"add {container['image'].removesuffix(NO_TAG)!r} to `images` of a kustomization.yaml"
                )
    return documents


def replace_placeholder(
    documents: Sequence[Document], reference: str
) -> tuple[str, list[tuple[Document, "Containers"]]]:
    """Gives the image to the containers that are told; returns their Deployment, and the other containers."""
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


def keep_live_images(kubectl: Kubectl, others: Sequence[tuple[Document, "Containers"]]) -> Iterator[str]:
    """Gives containers the image that they have in the cluster; yields a sentence for each document that differs.

    A canary's image is in the cluster only: what the manifests say would take it back.

    Raises:
        LifecycleError: the cluster cannot be asked.
    """
    for document, containers in others:
        target = name_of(document)
        live = dict(containers_of(kubectl.get(target) or {}))
        for path, container in containers.items():
            image = live.get(path, container)["image"]
            if image != container["image"]:
                yield f"{target} keeps {image}"
                container["image"] = image


def name_of(document: Document) -> str:
    """Returns how kubectl is told an object."""
    return f"{document['kind'].lower()}/{document['metadata']['name']}"


Containers = dict[tuple[str, ...], Document]
"""By where they are in a manifest: keys, and names of entries in lists."""


def containers_of(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Document]]:
    """Yields each container in a manifest, with where it is."""
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
