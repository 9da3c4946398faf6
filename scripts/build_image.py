"""Builds the container image with `bentoml build` and `bentoml containerize`, labels it, and prints its size.

    .venv/bin/python scripts/build_image.py                              # live: pulls its model from the registry
    .venv/bin/python scripts/build_image.py --model-version 3            # sealed: version 3 of SERVING_MODEL_NAME is inside
    .venv/bin/python scripts/build_image.py --stores gcs,azure           # with the clients of these artifact stores, besides S3's
    .venv/bin/python scripts/build_image.py --tag registry/churn:1.2 --dry-run

A sealed image needs no registry and no network. With a compiled model, it contains neither mlflow nor scikit-learn nor
pandas. Exit code 0 if the image was built, 1 if a command failed, 2 with one line on stderr if nothing was done.
"""

import argparse
import datetime as dt
import os
import shlex
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
from scripts.lifecycle.cli import DONE, FAILED, IMPOSSIBLE, OneLineParser  # noqa: E402  # the same
from serving.errors import PrepareError  # noqa: E402  # the same
from serving.model.prepared import Prepared  # noqa: E402  # the same
from serving.settings import Settings, SettingsError, load_settings, split_names  # noqa: E402  # the same

SEALED_REQUIREMENTS = "requirements/sealed.txt"
"""For a compiled model; any other needs the library that trained it, and all of `serving.txt`."""

STORES = ("gcs", "azure")
"""Artifact stores with their own file in `requirements/`; that of S3 is `serving.txt`."""


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command line."""
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model-version", type=int, metavar="N", help="bake in this version of the model")
    parser.add_argument(
        "--tag", help="tag of the image (mlflow-model-server:REVISION, or MODEL:VERSION if sealed)"
    )
    parser.add_argument(
        "--stores",
        type=store_names,
        default=(),
        metavar="NAMES",
        help=f"also install the clients of these artifact stores: {', '.join(STORES)}",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands without running them")
    return parser.parse_args(arguments)


def store_names(text: str) -> tuple[str, ...]:
    """Returns the named ones of `STORES`.

    Raises:
        ArgumentTypeError: one of them is unknown.
    """
    names = split_names(text)
    unknown = [name for name in names if name not in (*STORES, "s3")]
    if unknown:
        raise argparse.ArgumentTypeError(
            f"unknown store {', '.join(unknown)}: expected {', '.join(STORES)}; s3 is in every live image, and "
            "mlflow-artifacts: and local paths need no client"
        )
    return tuple(name for name in STORES if name in names)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        options = parse_arguments(arguments)
        settings = load_settings()
        prepared = None
        if options.model_version is not None:
            if options.stores:
                raise LifecycleError("--stores: a sealed image needs no artifact store; leave it out")
            prepared = prepare_version(settings, options.model_version)
        return build(options, prepared)
    except (LifecycleError, SettingsError, PrepareError) as error:
        print(f"build_image.py: {error}", file=sys.stderr)
        return IMPOSSIBLE


def prepare_version(settings: Settings, version: int) -> Prepared:
    """Returns the prepared model of a version, which has passed the same gate as in a promotion.

    Raises:
        PrepareError: it is missing, or rejected.
    """
    from serving.prepare.build import prepare
    from serving.prepare.registry.access import log_in
    from serving.prepare.registry.client import resolve

    os.environ.update(log_in(settings))

    pinned = settings.model_copy(
        update={"model_version": version, "challenger_alias": None, "shadow_alias": None}
    )
    return prepare(resolve(pinned).champion, pinned)


def build(options: argparse.Namespace, prepared: Prepared | None) -> int:
    """Runs the two commands; returns the exit code."""
    revision = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    tag = options.tag or (
        f"{prepared.manifest.name.lower()}:{prepared.manifest.version}"
        if prepared
        else f"mlflow-model-server:{revision}"
    )
    with (
        tempfile.NamedTemporaryFile("w", dir=ROOT, prefix="bentofile-", suffix=".yaml") as file,
        tempfile.NamedTemporaryFile("w", dir=ROOT, prefix="requirements-", suffix=".txt") as requirements,
    ):
        content = bentofile(prepared)
        if options.stores:
            # `make lock` pins packages that are in several to the same version.
            for name in ("serving", *options.stores):
                requirements.write((ROOT / f"requirements/{name}.txt").read_text())
            requirements.flush()
            content["python"]["requirements_txt"] = Path(requirements.name).name
        yaml.safe_dump(content, file, sort_keys=False)
        file.flush()
        bento = _run(options, ["bentoml", "build", "-f", Path(file.name).name, "-o", "tag"], ROOT)
    if bento is None:
        return FAILED
    bento = bento.strip().rpartition("__tag__:")[2] or "model_server:latest"
    command = ["bentoml", "containerize", bento, "-t", tag]
    for name, value in labels(revision, tag, prepared).items():
        command += ["--label", f"{name}={value}"]
    # BentoML accepts a Dockerfile template only from below the current folder, and copies it into a temporary folder.
    if _run(options, command, Path("/")) is None:
        return FAILED
    if not options.dry_run:
        size = _run(options, ["docker", "image", "inspect", "-f", "{{.Size}}", tag], ROOT)
        print(f"{tag}: {int(size or 0) / 1e6:.0f} MB")
    return DONE


def bentofile(prepared: Prepared | None) -> dict[str, Any]:
    """Returns the contents of `bentofile.yaml`, with the model in it, if there is one."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    if prepared is not None:
        content["models"] = [prepared.tag]
        # They need a registry.
        content["include"] = [one for one in content["include"] if not one.startswith("/scripts/")]
        if prepared.manifest.runtime == "compiled":
            content["python"]["requirements_txt"] = SEALED_REQUIREMENTS
    return content


def labels(revision: str, tag: str, prepared: Prepared | None) -> dict[str, str]:
    """Returns the image's labels. Source: the OCI image specification's annotations."""
    found = {
        "org.opencontainers.image.title": "mlflow-model-server",
        "org.opencontainers.image.version": tag.rpartition(":")[2],
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }
    if prepared is not None:
        manifest = prepared.manifest
        found |= {"mlflow.model.name": manifest.name, "mlflow.model.version": manifest.version}
        found |= {"mlflow.model.digest": manifest.digest}
    return found


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603, S607  # our own words
    return done.stdout.strip()


def _run(options: argparse.Namespace, command: list[str], folder: Path) -> str | None:
    """Runs a command of this environment; returns its output, None if it failed."""
    print(f"$ (cd {folder} && {shlex.join(command)})", flush=True)
    if options.dry_run:
        return ""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(  # noqa: S603  # our own words
        command, cwd=folder, env=os.environ | {"PATH": path}, stdout=subprocess.PIPE, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
