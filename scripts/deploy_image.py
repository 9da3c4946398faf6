"""Applies an overlay of k8s/ with another image, and waits until its pods are ready.

    python scripts/deploy_image.py staging --image registry.example/model-server:1.2.0
    python scripts/deploy_image.py production --image registry.example/model-server@sha256:… --no-wait
    python scripts/deploy_image.py production --image registry.example/model-server:1.2.0 --dry-run

The overlay's files stay as they are; what is applied is a copy, which the cluster has checked as a whole before. Where
the overlay has a Rollout, that one is waited for, until all pods are new or it stands at a step: then comes
scripts/canary.py, as after --no-wait. In the middle of a canary only the stable image is applied, which ends it. With
--json it tells which image was stable before, to go back to, and whether all pods are `ready` with the new one.
Exit code 0 when it is applied, and ready or at a step, 1 when it is not, or not in time, 2 with one line on stderr when
nothing was done, 130 after Ctrl-C and 143 after SIGTERM, with what was applied left as it is.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.deploying.kubectl import Document, Kubectl, call, last_line  # noqa: E402  # needs the line above
from scripts.deploying.workloads import find_workload  # noqa: E402  # the same
from scripts.lifecycle import LifecycleError  # noqa: E402  # the same
from scripts.lifecycle.cli import DONE, FAILED, OneLineParser, run, teller  # noqa: E402  # the same
from scripts.lifecycle.signals import Interrupted  # noqa: E402  # the same
from serving.settings import Settings  # noqa: E402  # the same

MANIFESTS = ROOT / "k8s"

DEPLOYMENT = "model-server"
"""Whose pods are waited for, and whose image is the one before; or the Rollout's that took them over."""


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
    namespace = read_namespace(options.overlay)
    if options.require and not any(one["kind"] == options.require for one in documents):
        raise LifecycleError(
            f"k8s/overlays/{options.overlay} has no {options.require} (which component does?)"
        )
    reference = to_reference(image)
    facts = {"overlay": options.overlay, "namespace": namespace, "image": reference}
    if options.dry_run:
        return DONE, facts | {"done": False}, [manifests]
    kubectl = Kubectl(namespace, options.context)
    workload = find_workload(kubectl, documents, DEPLOYMENT)
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
    outcome = workload.wait(options.timeout_seconds)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return run("deploy_image.py", deploy, parse_arguments, arguments)


if __name__ == "__main__":
    sys.exit(main())
