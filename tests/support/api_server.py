"""What doubles of the Kubernetes API that a real kubectl talks to have in common: discovery, and refusals."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.doubles import Quiet


class ApiHandler(Quiet):
    """Answers as the API server does."""

    protocol_version = "HTTP/1.1"

    def discover(self, path: str, kinds: Mapping[str, Sequence[tuple[str, str]]]) -> bool:
        """Answers what kubectl asks first, which kinds there are; False where it asks something else.

        Args:
            path: of the request.
            kinds: plural and kind, by the path of their version, such as `/apis/batch/v1`.
        """
        if path == "/api":
            self.say({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            groups = []
            for api in filter(re.compile("/apis/").match, kinds):
                group, number = api.removeprefix("/apis/").split("/")
                version = {"groupVersion": f"{group}/{number}", "version": number}
                groups.append({"name": group, "versions": [version], "preferredVersion": version})
            self.say({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        elif path in kinds:
            resources = [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "namespaced": kind != "Namespace",
                    "kind": kind,
                    "verbs": ["create", "get", "list", "patch"],
                }
                for plural, kind in kinds[path]
            ]
            version = path.split("/", 2)[2]
            self.say({"kind": "APIResourceList", "groupVersion": version, "resources": resources})
        else:
            return False
        return True

    def read(self) -> Any:
        """Returns the object that was sent."""
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def say(self, document: dict[str, Any], status: int = 200) -> None:
        """Answers with an object."""
        self.answer(json.dumps(document).encode(), status)

    def refuse(self, message: str) -> None:
        """Answers that something is not there."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound"}
        self.say(status | {"message": message, "code": 404}, 404)
