"""Kubernetes client for canaries: reads objects, and patches them only if nobody else has changed them."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import urllib3.exceptions
import yaml

from scripts.lifecycle import LifecycleError
from scripts.lifecycle.connection import reason

if TYPE_CHECKING:
    from kubernetes.client import ApiException

ROOT = Path(__file__).resolve().parent.parent.parent

REQUEST_SECONDS = 10

MERGE_PATCH = "application/merge-patch+json"
"""The only patch type that both built-in and custom resources accept."""

Document = dict[str, Any]


class Kind(NamedTuple):
    """A kind of object."""

    title: str
    group: str
    version: str
    plural: str


class ClusterError(LifecycleError):
    """The cluster refuses a request."""


class Unavailable(ClusterError):
    """The cluster does not answer; a retry may succeed."""


class Conflict(Unavailable):
    """Somebody else has changed the object since it was read."""


BUSY = frozenset({408, 409, 425, 429})
"""Statuses worth retrying, besides all from 500 up."""


class Cluster:
    """One namespace of a cluster, through the official client."""

    def __init__(self, namespace: str, context: str | None = None) -> None:
        """Loads the connection settings; sends no request yet.

        Args:
            namespace: of all objects.
            context: of the kubeconfig; None takes the current one, or the service account in a pod without kubeconfig.

        Raises:
            LifecycleError: the client is not installed, or there is no such context.
        """
        try:
            from kubernetes import client, config
        except ImportError:
            raise LifecycleError(
                f"the Kubernetes client is missing: {sys.executable} -m pip install --require-hashes -r "
                f"{ROOT}/requirements/deploy.txt"
            ) from None
        self.namespace = namespace
        settings = client.Configuration()
        try:
            if context is None and _is_inside():
                config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            else:
                config.load_kube_config(context=context, client_configuration=settings)  # type: ignore[no-untyped-call]
        except (config.ConfigException, yaml.YAMLError, OSError, ValueError, LookupError, TypeError) as error:
            raise LifecycleError(f"no cluster is configured: {reason(error)}") from None
        # Retries happen in our code, which knows whether a change was made.
        settings.retries = False
        self.host: str = settings.host
        self._api = client.CustomObjectsApi(client.ApiClient(settings))
        self._core = client.CoreV1Api(client.ApiClient(settings))
        self._refusal = client.ApiException

    def get(self, kind: Kind, name: str) -> Document:
        """Returns an object.

        Raises:
            ClusterError: there is none, the cluster does not answer, or refuses.
        """
        return self._call(self._api.get_namespaced_custom_object, kind, name)

    def patch(self, kind: Kind, before: Document, change: Document, part: str = "") -> Document:
        """Patches an object if it is unchanged since it was read; returns it.

        Args:
            kind: of the object.
            before: as it was read.
            change: the fields that change (lists as a whole).
            part: `status` for fields of the status, else empty.

        Raises:
            Conflict: it has changed since.
            ClusterError: the cluster does not answer, or refuses.
        """
        metadata = change.get("metadata", {}) | {"resourceVersion": before["metadata"]["resourceVersion"]}
        body = change | {"metadata": metadata}
        call = (
            self._api.patch_namespaced_custom_object_status
            if part
            else self._api.patch_namespaced_custom_object
        )
        return self._call(call, kind, before["metadata"]["name"], body=body, _content_type=MERGE_PATCH)

    def all_of(self, kind: Kind) -> list[Document]:
        """Returns all objects of a kind.

        Raises:
            ClusterError: as `get`.
        """
        answer = self._ask(
            f"the list of {kind.plural} in {self.namespace}",
            lambda: self._api.list_namespaced_custom_object(
                kind.group, kind.version, self.namespace, kind.plural, _request_timeout=REQUEST_SECONDS
            ),
        )
        return list(answer.get("items") or [])

    def service_selectors(self) -> list[dict[str, str]]:
        """Returns the pod selector of each Service, except headless ones.

        Raises:
            ClusterError: as `get`.
        """
        services = self._ask(
            f"the list of services in {self.namespace}",
            lambda: self._core.list_namespaced_service(
                self.namespace, _request_timeout=REQUEST_SECONDS
            ).to_dict(),
        )
        specs = [one.get("spec") or {} for one in services.get("items") or []]
        # A headless Service balances no traffic.
        return [
            spec["selector"] for spec in specs if spec.get("selector") and spec.get("cluster_ip") != "None"
        ]

    def _call(self, call: Any, kind: Kind, name: str, **more: Any) -> Document:
        answer = self._ask(
            f"{kind.title} {self.namespace}/{name}",
            lambda: call(
                kind.group,
                kind.version,
                self.namespace,
                kind.plural,
                name,
                _request_timeout=REQUEST_SECONDS,
                **more,
            ),
        )
        if "spec" not in answer or "resourceVersion" not in answer.get("metadata", {}):
            raise Unavailable(f"the cluster {self.host} gave no valid answer")
        return answer

    def _ask(self, what: str, call: Callable[[], Any]) -> Document:
        try:
            answer = call()
        except self._refusal as error:
            if error.status == 409:
                raise Conflict(f"the cluster refuses {what}: {_message(error)}") from None
            is_passing = error.status in BUSY or (error.status or 500) >= 500
            refusal = Unavailable if is_passing else ClusterError
            raise refusal(f"the cluster refuses {what}: {_message(error)}") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(f"the cluster {self.host} does not answer: {_root(error)}") from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or not answer:
            raise Unavailable(f"the cluster {self.host} gave no valid answer")
        return answer


def _is_inside() -> bool:
    """True in a pod without a kubeconfig."""
    from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

    files = str(KUBE_CONFIG_DEFAULT_LOCATION).split(os.pathsep)
    has_file = any(os.path.exists(os.path.expanduser(file)) for file in files)  # noqa: PTH110, PTH111  # os.pathsep above
    return "KUBERNETES_SERVICE_HOST" in os.environ and not has_file


def _message(error: "ApiException") -> str:
    """Returns the server's message in one line."""
    import msgspec

    try:
        said = msgspec.json.decode(error.body or b"")["message"]
    except (msgspec.MsgspecError, LookupError, TypeError):
        said = error.reason
    return " ".join(f"{error.status} {said}".split())


def _root(error: BaseException) -> str:
    """Returns the root cause that urllib3 wraps."""
    inner = getattr(error, "reason", None)
    return _root(inner) if isinstance(inner, BaseException) else reason(error)
