"""kubectl, in one namespace of one cluster."""

import json
import re
import subprocess
from collections.abc import Sequence
from typing import Any

from scripts.lifecycle import LifecycleError

Document = dict[str, Any]
Done = subprocess.CompletedProcess[str]


class Kubectl:
    """Runs kubectl."""

    def __init__(self, namespace: str, context: str | None) -> None:
        """Takes namespace and context; None is the kubeconfig's current context."""
        self._start = ["kubectl", *(["--context", context] if context else []), "--namespace", namespace]

    def __call__(self, *arguments: str, text: str | None = None) -> Done:
        """Runs it and waits for it, with a text as its input.

        Raises:
            LifecycleError: it is not installed.
        """
        return call([*self._start, *arguments], text)

    def get(self, *arguments: str) -> Document | None:
        """Returns an object, or a list of them; None if there is none.

        Raises:
            LifecycleError: the cluster cannot be queried.
        """
        found = self("get", *arguments, "--ignore-not-found", "--output", "json")
        if found.returncode:
            raise LifecycleError(f"the cluster cannot be queried: {last_line(found.stderr)}")
        document: Document | None = json.loads(found.stdout) if found.stdout.strip() else None
        return document


def call(command: Sequence[str], text: str | None = None) -> Done:
    """Runs kubectl.

    Raises:
        LifecycleError: it is not installed.
    """
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603  # our own words
    except FileNotFoundError:
        raise LifecycleError("kubectl is not installed") from None


def last_line(text: str) -> str:
    """Returns the last line of a command's output."""
    return (text.strip().splitlines() or [""])[-1]


def build_error(text: str) -> str:
    """Returns in one line why `kubectl kustomize` failed, without the frame of its log."""
    found = re.search(r"""err=(?:<\n(?P<lines>.*)\n >|"(?P<line>.*)")\s*$""", text, re.DOTALL)
    reason = (found["lines"] or found["line"].replace('\\"', '"')) if found else text
    return " ".join(" ".join(line for line in reason.splitlines() if not line.startswith("#")).split())
