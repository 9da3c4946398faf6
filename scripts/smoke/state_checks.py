"""Claims about a service's state: it is live, ready, and follows the registry."""

from typing import Any

from scripts.lifecycle import LifecycleError
from scripts.smoke import Broken, NoAnswer
from scripts.smoke.client import Answer
from scripts.smoke.run import SmokeRun


def live(run: SmokeRun) -> str:
    """A model server answers.

    Raises:
        LifecycleError: none does, so there is nothing to check.
    """
    path = "/v1/models" if run.expected.v1_only else "/livez"
    while True:
        try:
            answer = run.get(path)
        except NoAnswer as error:
            if error.is_final or not run.pause(str(error)):
                raise LifecycleError(f"no service answers at {run.url}: {error}") from None
        else:
            # A proxy answers 5xx while it has no service behind it.
            if answer.status < 500:
                break
            if not run.pause(f"{path} answers {answer.kind}"):
                raise Broken(f"{path} answers {answer.kind}")
    found = _object(answer)
    if answer.status == 200 and ("models" in found or found.get("status") == "alive"):
        return f"{path} answers"
    raise LifecycleError(_tell_stranger(run.url, answer))


def _tell_stranger(url: str, answer: Answer) -> str:
    where = f"{url} is not a model server: {answer.path}"
    if 300 <= answer.status < 400:
        target = answer.headers.get("Location", "nowhere")[:200]
        return f"{where} redirects to {target!r}; give the final URL"
    if answer.status in (401, 403):
        return (
            f"{url} wants a login ({answer.status} at {answer.path}): set SMOKE_TEST_HEADER, or give --header"
        )
    hint = "; if only /v1 is open, give --v1-only" if answer.status == 404 else ""
    return f"{where} answers {answer.kind}{hint}"


def _object(answer: Answer) -> dict[str, Any]:
    try:
        found = answer.json()
    except Broken:
        return {}
    return found if isinstance(found, dict) else {}


def ready(run: SmokeRun) -> str:
    """Behind every connection, a model is loaded and has answered its own example."""
    if run.expected.v1_only:
        run.wait("/v1/models", _lacks_model)
        return "/v1/models says ready"

    def lacks(answer: Answer) -> str:
        if answer.status != 200:
            return f"not ready: {answer.error()}"
        return (
            "" if _object(answer).get("status") == "ready" else "/readyz answers 200 and does not say ready"
        )

    run.wait("/readyz", lacks)
    return "/readyz says ready"


def model(run: SmokeRun) -> str:
    """The expected version answers."""
    name, version = run.expected.name, run.expected.version

    def lacks(answer: Answer) -> str:
        missing = _lacks_model(answer)
        if missing:
            return missing
        said = answer.json()
        run.models = {one["role"]: one for one in said["models"]}
        found = run.champion
        if name is not None and found["name"] != name:
            raise Broken(f"it serves the model {found['name']!r}, not {name!r}")
        if version is not None and found["version"] != version:
            for refused in said["refused"]:
                if refused["version"] == version and refused["reason"] == said["stale"]:
                    raise Broken(f"version {version} is refused: {refused['reason']}")
            return f"it serves version {found['version']}, not {version}"
        return ""

    run.wait("/v1/models", lacks)
    found = run.champion
    return f"{found['name']} version {found['version']} ({found['task']}, {found['runtime']})"


def _lacks_model(answer: Answer) -> str:
    if answer.status != 200:
        return f"/v1/models answers {answer.error()}"
    said = answer.json()
    if not said["ready"] or not any(one["role"] == "champion" for one in said["models"]):
        return f"not ready: {said.get('reason') or 'there is no model'}"
    return ""


def registry(run: SmokeRun) -> str:
    """The service follows the registry."""
    refused: set[str] = set()

    def lacks(answer: Answer) -> str:
        said = answer.json()
        refused.update(one["version"] for one in said["refused"])
        return f"it does not follow the registry: {said['stale']}" if said["stale"] else ""

    run.wait("/v1/models", lacks)
    if refused:
        return f"followed; refused versions: {', '.join(sorted(refused))}"
    return "followed"
