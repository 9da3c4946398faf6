"""docs/deploy.md: every command in it exists, with the options that it is given, and what it names is there."""

import re
import shlex

import pytest
import yaml

from tests.kubernetes.building import COMPONENTS, K8S, build, of_kind
from tests.support.environment import ROOT
from tests.support.scripts import help_of

PAGE = (ROOT / "docs" / "deploy.md").read_text()

COMMANDS = [line.replace("\\\n", "") for line in re.findall(r"^\$ ((?:.*\\\n)*.*)$", PAGE, re.MULTILINE)]
"""Without the ends of lines that go on."""
IN_TEXT = re.findall(r"`([^`\n]+)`", PAGE.replace("\n", " ").replace("```", ""))

TARGETS = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def scripts_in(command: str) -> list[tuple[str, list[str]]]:
    """The Python scripts in a command, with their arguments."""
    words = shlex.split(command.replace("…", "x"))
    return [
        (word, words[at + 1 :]) for at, word in enumerate(words) if re.fullmatch(r"scripts/\w+\.py", word)
    ]


CALLS = [call for command in [*COMMANDS, *IN_TEXT] for call in scripts_in(command)]


def test_the_page_is_about_something():
    assert len(COMMANDS) > 10
    assert {script for script, _ in CALLS} >= {
        "scripts/deploy_image.py",
        "scripts/smoke_test.py",
        "scripts/canary.py",
        "scripts/promote.py",
        "scripts/rollback.py",
    }


@pytest.mark.parametrize(("script", "arguments"), CALLS, ids=lambda value: str(value)[:60])
def test_its_scripts_take_these_options(script: str, arguments: list[str]):
    known = help_of(script)
    options = [word for word in arguments if word.startswith("--")]
    assert [option for option in options if option not in known] == []


@pytest.mark.parametrize("command", [one for one in [*COMMANDS, *IN_TEXT] if one.startswith("make ")])
def test_its_targets_are_there(command: str):
    target, *variables = shlex.split(command)[1:]
    assert target in TARGETS
    assert all(re.match(r"[A-Z_]+=", variable) for variable in variables)


@pytest.mark.parametrize(
    "file", sorted({*re.findall(r"(?:scripts|k8s|docs|requirements)/[\w./-]+\.\w+", PAGE), "bentofile.yaml"})
)
def test_its_files_are_there(file: str):
    assert (ROOT / file).is_file()


def test_its_components_namespaces_and_objects_are_there():
    named = {word for word in IN_TEXT if word in COMPONENTS}
    assert named >= {"canary", "canary-steps", "gateway", "model-cache"}
    namespaces = {
        of_kind(build(overlay), "Namespace")[0]["metadata"]["name"] for overlay in ("staging", "production")
    }
    used = set(re.findall(r"(?:-n|--namespace|with_service\.sh) ([\w-]+)", PAGE))
    assert used - namespaces == {"mlflow", "default"}  # the registry's own, and a stranger's
    assert namespaces <= used
    route = of_kind(build("production", "gateway"), "HTTPRoute")[0]["metadata"]["name"]
    assert f"canary.py httproute {route}" in PAGE
    assert of_kind(build("production", "canary-steps"), "Rollout")[0]["metadata"]["name"] == "model-server"


def test_what_is_tried_in_staging_is_done_there():
    """A line that says staging has commands for staging's namespace only."""
    lines = [line for line in PAGE.splitlines() if "in staging" in line and " -n " in line]
    assert lines
    for line in lines:
        assert set(re.findall(r" -n ([\w-]+)", line)) == {"model-server-staging"}, line


@pytest.mark.parametrize("namespace", ["model-server", "model-server-staging"])
def test_its_secrets_are_those_that_the_pods_read(namespace: str):
    created = set(re.findall(rf"kubectl create secret generic (\S+) -n {namespace} ", PAGE))
    (deployment,) = of_kind(build("production"), "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    read = {entry["valueFrom"]["secretKeyRef"]["name"] for entry in container["env"] if "valueFrom" in entry}
    assert created == read


def test_the_login_of_the_image_is_used_by_the_pods():
    created = set(re.findall(r"kubectl create secret docker-registry (\S+) -n ([\w-]+) ", PAGE))
    (block,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (patch,) = yaml.safe_load(block)["patches"]
    assert len(of_kind(build("production"), patch["target"]["kind"])) == 1
    (operation,) = yaml.safe_load(patch["patch"])
    assert (operation["op"], operation["path"]) == ("add", "/imagePullSecrets")
    (secret,) = operation["value"]
    assert created == {(secret["name"], "model-server"), (secret["name"], "model-server-staging")}
    registry = (K8S / "examples" / "registry" / "kustomization.yaml").read_text()
    (commented,) = re.findall(r"^# patches:\n(?:# .*\n)+", registry, re.MULTILINE)
    assert yaml.safe_load(re.sub("^# ", "", commented, flags=re.MULTILINE)) == yaml.safe_load(block)
    assert len(of_kind(build("registry"), patch["target"]["kind"])) == 1


def test_staging_has_its_alias_before_it_is_deployed():
    """A pod without a model is never ready."""
    first = next(at for at, command in enumerate(COMMANDS) if "deploy_image.py staging" in command)
    assert any("promote.py" in command and "--alias staging" in command for command in COMMANDS[:first])


def test_the_ports_that_pods_get_out_to_are_told():
    ports = {
        port["port"]
        for policy in of_kind(build("production"), "NetworkPolicy")
        for rule in policy["spec"].get("egress", [])
        for port in rule["ports"]
    }
    (told,) = re.findall(r"apart from DNS \((\d+)\), pods can reach only the ports (\d+) and (\d+)", PAGE)
    assert {int(port) for port in told} == ports


def test_what_is_counted_is_counted_in_one_namespace():
    assert re.findall(r"`(count\([^`]*)`", PAGE) == ['count(model_ready{namespace="model-server"})']


def test_its_alerts_and_metrics_are_there():
    rules = yaml.safe_load((ROOT / "monitoring" / "prometheus" / "rules.yaml").read_text())
    alerts = {rule.get("alert") for group in rules["groups"] for rule in group["rules"]}
    assert set(re.findall(r"`(Model\w+)`", PAGE)) <= alerts


def test_its_variables_and_secrets_are_those_of_the_workflows():
    workflows = [file.read_text() for file in (ROOT / ".github").rglob("*.yaml")]
    used = {name for text in workflows for name in re.findall(r"(?:vars|secrets)\.([A-Z_]+)", text)}
    table = PAGE.partition("| where | name | what |")[2].partition("\n\n")[0]
    told = {name for row in table.splitlines() for name in re.findall(r"`([A-Z_]+)`", row)}
    assert told == used


def test_the_fields_of_its_runs_are_inputs():
    deploy = yaml.safe_load((ROOT / ".github" / "workflows" / "deploy.yaml").read_text())
    inputs = deploy[True]["workflow_dispatch"]["inputs"]  # YAML 1.1 takes `on` for a boolean
    fields = dict(re.findall(r"--field ([\w-]+)=(\"[^\"]+\"|\S+)", PAGE))
    assert set(fields) <= set(inputs)
    assert fields["operation"].strip('"') in inputs["operation"]["options"]
