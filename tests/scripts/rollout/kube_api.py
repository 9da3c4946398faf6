"""A double of the Kubernetes API server over real HTTP, and of the controllers behind it.

It keeps to the wire format of the real one: `Status` objects for refusals, optimistic locking by `resourceVersion`, a
`status` that is changed apart from the rest, a `generation` that counts changes of `spec`, merge patches (RFC 7386) by
their media type, and schemas of the kinds that it knows.
"""

import copy
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.kubernetes.validating import VERSIONS, problems
from tests.scripts.rollout.clock import Clock
from tests.support.doubles import Double, Quiet

Document = dict[str, Any]

TOKEN = "the-token-of-a-deployer"

LIST = re.compile(r"/apis?/(?P<api>(?:[^/]+/)?v[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)$")

PATH = re.compile(
    r"/apis/(?P<api>[^/]+/[^/]+)/namespaces/(?P<namespace>[^/]+)/(?P<plural>[^/]+)/(?P<name>[^/?]+)(?P<status>/status)?$"
)

CONTROL_SECONDS = 0.15
"""After a change its controller sees it."""

REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
}


class Refusal(Exception):
    """What the server answers with a `Status`."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def merge(target: Any, patch: Any) -> Any:
    """What a merge patch makes of a value. Source: RFC 7386, section 2."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


class KubeApi(Double):
    """Holds objects."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Handler)
        self._clock = clock
        self.objects: dict[str, Document] = {}
        """By plural and name."""
        self.patches: list[tuple[str, Document]] = []
        """What was changed, in order: path and body."""
        self.n_requests = 0
        self.busy = 0
        """So many requests are refused for now."""
        self.loses_answer = False
        """The next patch is made, and its answer does not arrive."""
        self.is_dead = False
        self.forbidden: set[str] = set()
        """Methods that the account may not use."""
        self.on_patch: Callable[[Document], Any] = lambda _: None
        """Called before each patch with the object: somebody else's moment."""
        self.controllers: list[Callable[[Document], Any]] = []
        """Called with the object a moment after it was changed, which they may change, too."""
        self.refusals: list[int] = []
        """Status codes of refusals, in order."""
        self.garbage: bytes | None = None
        """What it answers instead."""
        self.lock = threading.RLock()
        self._version = 1000

    def add(self, plural: str, document: Document) -> Document:
        """Creates an object; returns it."""
        document = copy.deepcopy(document)
        document["metadata"] |= {"generation": 1, "uid": f"uid-{len(self.objects)}"}
        self.objects[f"{plural}/{document['metadata']['name']}"] = document
        with self.lock:
            self._count(document)
            self._control(document)
        return document

    def change(self, document: Document, edit: Callable[[Document], Any]) -> None:
        """Changes an object behind everybody's back."""
        with self.lock:
            before = copy.deepcopy(document.get("spec"))
            edit(document)
            if document.get("spec") != before:
                document["metadata"]["generation"] += 1
            self._touch(document)

    def _touch(self, document: Document) -> None:
        self._count(document)
        self._clock.after(CONTROL_SECONDS, lambda: self._control(document))

    def _count(self, document: Document) -> None:
        self._version += 1
        document["metadata"]["resourceVersion"] = str(self._version)

    def _control(self, document: Document) -> None:
        with self.lock:
            before = copy.deepcopy(document)
            for controller in self.controllers:
                controller(document)
            if document != before:
                self._count(document)

    def list(self, path: str) -> Document | None:
        """All objects that a path names; None where it names one."""
        match = LIST.fullmatch(path)
        if match is None:
            return None
        items = [
            document
            for key, document in self.objects.items()
            if key.startswith(f"{match['plural']}/")
            and document["metadata"]["namespace"] == match["namespace"]
        ]
        return {"apiVersion": match["api"], "kind": "List", "metadata": {}, "items": copy.deepcopy(items)}

    def get(self, path: str) -> Document:
        return self._find(path)[0]

    def _find(self, path: str) -> tuple[Document, bool]:
        match = PATH.fullmatch(path)
        if match is None:
            raise Refusal(404, "the server could not find the requested resource")
        found = self.objects.get(f"{match['plural']}/{match['name']}")
        group = match["api"].split("/")[0]
        resource = f"{match['plural']}.{group}"
        if (
            found is None
            or match["namespace"] != found["metadata"]["namespace"]
            or found["apiVersion"] != match["api"]
        ):
            raise Refusal(404, f'{resource} "{match["name"]}" not found')
        return found, match["status"] is not None

    def patch(self, path: str, content_type: str, body: bytes) -> Document:
        if content_type != "application/merge-patch+json":
            raise Refusal(415, f"the body of the request was in an unknown format - {content_type}")
        change = json.loads(body)
        self.on_patch(self._find(path)[0])
        with self.lock:
            found, is_status = self._find(path)
            wanted = change.get("metadata", {}).get("resourceVersion")
            if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
                raise Refusal(
                    409,
                    f'Operation cannot be fulfilled on "{found["metadata"]["name"]}": the object has been modified; '
                    "please apply your changes to the latest version and try again",
                )
            merged = merge(found, change)
            changed = copy.deepcopy(found)
            if is_status:
                changed["status"] = merged.get("status", {})
            else:
                changed |= {"spec": merged["spec"], "metadata": merged["metadata"]}
                self._validate(changed)
            self.patches.append((path, change))
            if changed.get("spec") != found.get("spec"):
                changed["metadata"]["generation"] = found["metadata"]["generation"] + 1
            found.clear()
            found.update(changed)
            self._touch(found)
            return copy.deepcopy(found)

    @staticmethod
    def _validate(document: Document) -> None:
        metadata = document["metadata"]
        for value in metadata.get("annotations", {}).values():
            if not isinstance(value, str):
                raise Refusal(422, "metadata.annotations: Invalid value: must be a string")
        shown = {
            name: metadata[name]
            for name in ("name", "namespace", "annotations", "labels")
            if name in metadata
        }
        wrong = problems(
            {name: document[name] for name in ("apiVersion", "kind", "spec")} | {"metadata": shown},
            VERSIONS[-1],
        )
        if wrong:
            raise Refusal(422, f"is invalid: {wrong[0]}")


class _Handler(Quiet):
    server: KubeApi
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self._answer(lambda: self.server.list(path) or copy.deepcopy(self.server.get(path)))

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(lambda: self.server.patch(self.path, self.headers["Content-Type"], body))

    def _answer(self, act: Callable[[], Document]) -> None:
        self.server.n_requests += 1
        if self.server.is_dead:
            self.close_connection = True
            return
        try:
            if self.server.busy > 0:
                self.server.busy -= 1
                raise Refusal(429, "too many requests, please try again later")
            if self.headers["Authorization"] != f"Bearer {TOKEN}":
                raise Refusal(401, "Unauthorized")
            if self.command in self.server.forbidden:
                raise Refusal(
                    403, f'{self.path} is forbidden: User "deployer" cannot {self.command.lower()} it'
                )
            code, answer = 200, act()
        except Refusal as refusal:
            code = refusal.code
            self.server.refusals.append(code)
            answer = {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": str(refusal),
                "reason": REASONS[code],
                "code": code,
            }
        if self.server.loses_answer and self.command == "PATCH" and code == 200:
            self.server.loses_answer = False
            self.close_connection = True
            return
        body = json.dumps(answer).encode() if self.server.garbage is None else self.server.garbage
        self.answer(body, code)


def write_kubeconfig(file: Path, url: str, token: str = TOKEN) -> None:
    """Writes what `kubectl` would have of the server."""
    settings = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "deployer"}}],
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "deployer", "user": {"token": token}}],
    }
    file.write_text(json.dumps(settings))


def make_ready(document: Document) -> None:
    """The controller of Deployments, in a cluster whose pods are ready as soon as it sees that they should be there."""
    if document["kind"] != "Deployment":
        return
    n = document["spec"].get("replicas", 1)
    document["status"] = {
        "observedGeneration": document["metadata"]["generation"],
        "replicas": n,
        "updatedReplicas": n,
        "readyReplicas": n,
    }


class RolloutController:
    """What Argo Rollouts' controller does with a Rollout. Source: rollout/canary.go of argoproj/argo-rollouts."""

    def __init__(self) -> None:
        self.weights: list[int] = []
        """That the canary had, in their order."""
        self.is_degrading = False
        """The new pods do not get ready."""

    def __call__(self, document: Document) -> None:
        if document["kind"] != "Rollout":
            return
        status = document.setdefault("status", {})
        status["observedGeneration"] = str(document["metadata"]["generation"])
        steps = document["spec"]["strategy"]["canary"]["steps"]
        if status["stableRS"] == status["currentPodHash"]:
            status |= {"phase": "Healthy", "currentStepIndex": len(steps)}
            return
        if status.get("abort"):
            status |= {
                "phase": "Degraded",
                "message": "RolloutAborted: Rollout aborted update to revision 2",
                "currentStepIndex": 0,
                "updatedReplicas": 0,
            }
            status.pop("pauseConditions", None)
            self._weigh(0)
            return
        index = status.setdefault("currentStepIndex", 0)
        was_paused = status.get("controllerPause", False)
        if was_paused and not status.get("pauseConditions"):
            index, status["controllerPause"] = index + 1, False
        elif was_paused:
            return
        while index < len(steps) and "setWeight" in steps[index]:
            self._weigh(steps[index]["setWeight"])
            index += 1
        status |= {"currentStepIndex": index, "replicas": 4, "updatedReplicas": 1}
        if self.is_degrading:
            status |= {"phase": "Degraded", "message": "ProgressDeadlineExceeded: has timed out progressing"}
        elif index < len(steps):
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            status["pauseConditions"] = [{"reason": "CanaryPauseStep", "startTime": moment}]
            status |= {"controllerPause": True, "phase": "Paused", "message": "CanaryPauseStep"}
        else:
            self._weigh(100)
            status |= {"stableRS": status["currentPodHash"], "phase": "Healthy"}

    def _weigh(self, weight: int) -> None:
        if not self.weights or self.weights[-1] != weight:
            self.weights.append(weight)
