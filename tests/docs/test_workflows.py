"""`.github/`: pinned, with the least rights, and calling only what is there."""

import re
import shlex
import subprocess
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environment import ROOT, clean_environment
from tests.support.scripts import help_of

FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yaml"))
ACTIONS = sorted((FOLDER / "actions").glob("*/action.yaml"))
FILES = [*WORKFLOWS, *ACTIONS]

ACTORS = {"actions/", "anchore/", "sigstore/", "./.github/"}
"""Whose actions are taken: GitHub's own, and those that scan and sign."""

WRITES = {
    ("release", "publish"): {"id-token", "attestations"},
}
"""The jobs that may write, and what."""

UNTRUSTED = re.compile(r"\$\{\{")


@cache
def load(file: Path) -> dict[Any, Any]:
    """A workflow; YAML takes the key `on` for true."""
    return dict(yaml.safe_load(file.read_text()))


def name(file: Path) -> str:
    return file.relative_to(FOLDER).as_posix()


def jobs(file: Path) -> dict[str, Any]:
    return dict(load(file)["jobs"])


def steps(file: Path) -> list[dict[str, Any]]:
    document = load(file)
    if "runs" in document:
        return list(document["runs"]["steps"])
    return list(chain.from_iterable(job.get("steps", []) for job in document["jobs"].values()))


def scripts_of(file: Path) -> list[str]:
    """The lines of the steps, those that go on put together."""
    runs = [step["run"].replace("\\\n", " ") for step in steps(file) if "run" in step]
    return [line.strip() for run in runs for line in run.splitlines()]


def calls() -> list[tuple[str, str, list[str]]]:
    """Each call of a script: the file, the script, and the options that are named."""
    found = []
    for file in FILES:
        for line in scripts_of(file):
            for script, rest in re.findall(r"(scripts/\w+\.py)(.*)", line):
                options = re.findall(r"(?<![\w-])--[a-z][\w-]*", rest.partition(" | ")[0])
                found.append((name(file), script, options))
    return found


def step_of(job: str, title: str) -> dict[str, Any]:
    """A step of deploy.yaml."""
    (found,) = [
        step for step in jobs(FOLDER / "workflows" / "deploy.yaml")[job]["steps"] if step.get("name") == title
    ]
    return dict(found)


def run_step(job: str, title: str, folder: Path, **environment: str) -> tuple[int, dict[str, str]]:
    """Runs the script of a step of deploy.yaml; returns its exit code and its outputs."""
    outputs = folder / "outputs"
    outputs.write_text("")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", step_of(job, title)["run"]],
        cwd=folder,
        env=clean_environment() | {"GITHUB_OUTPUT": str(outputs), "RUNNER_TEMP": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, dict(line.split("=", 1) for line in outputs.read_text().splitlines())


def test_there_are_these_workflows():
    assert [file.stem for file in WORKFLOWS] == ["ci", "deploy", "release", "soak"]


def test_long_runs_are_made_weekly():
    document = load(FOLDER / "workflows" / "soak.yaml")
    (when,) = document[True]["schedule"]  # YAML reads `on` as true
    assert re.fullmatch(r"\d+ \d+ \* \* \d", when["cron"])
    runs = {job: content["steps"][-1]["run"] for job, content in document["jobs"].items()}
    assert runs == {
        "soak": "make soak",
        "fuzz": "make fuzz",
        "zoo": "make zoo",
        "registries": "make registries",
    }


@pytest.mark.parametrize("file", FILES, ids=name)
def test_every_action_is_pinned_to_a_commit_and_says_which_version_that_is(file: Path):
    for line in file.read_text().splitlines():
        used = re.match(r"\s*(?:- )?uses:\s*(.+)", line)
        if used is None:
            continue
        assert used[1].startswith(tuple(ACTORS)), line
        assert used[1].startswith("./") or re.fullmatch(
            r"[\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used[1]
        ), line


def test_an_action_has_one_commit_everywhere():
    pins: dict[str, set[str]] = {}
    for file in FILES:
        for action, pin in re.findall(r"uses: ([\w./-]+)@(\w+ # \S+)", file.read_text()):
            pins.setdefault(action, set()).add(pin)
    assert pins
    assert {action: pin for action, pin in pins.items() if len(pin) > 1} == {}


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_nobody_has_rights_that_are_not_given_to_a_job(file: Path):
    assert load(file)["permissions"] == {}
    for job, content in jobs(file).items():
        given = content["permissions"]
        writes = {right for right, level in given.items() if level != "read"}
        assert writes == WRITES.get((file.stem, job), set()), job
        assert set(given) - writes <= {"contents"}, job


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_every_job_ends_in_time(file: Path):
    for job, content in jobs(file).items():
        if "uses" not in content:  # the jobs of the other workflow have their own
            assert content["timeout-minutes"] <= 360, job


@pytest.mark.parametrize("file", WORKFLOWS, ids=name)
def test_only_checks_are_cancelled_by_what_comes_after(file: Path):
    document = load(file)
    groups = [
        document["concurrency"],
        *(job["concurrency"] for job in jobs(file).values() if "concurrency" in job),
    ]
    assert {group["cancel-in-progress"] for group in groups} == {file.stem == "ci"}
    if file.stem == "deploy":
        queued = {
            job: content["concurrency"]["group"]
            for job, content in jobs(file).items()
            if "concurrency" in content
        }
        assert queued["staging"] != queued["production"]
        assert queued["rollback"] != queued["production"], "a way back would wait for a deployment"


@pytest.mark.parametrize("file", FILES, ids=name)
def test_steps_stop_at_the_first_mistake(file: Path):
    shell = "bash -euo pipefail {0}"
    document = load(file)
    if "jobs" in document:
        assert document["defaults"]["run"]["shell"] == shell
        assert all("shell" not in step for step in steps(file))
    else:
        assert all(step["shell"] == shell for step in steps(file) if "run" in step)


@pytest.mark.parametrize("file", FILES, ids=name)
def test_no_expression_is_written_into_a_script(file: Path):
    assert [step["run"] for step in steps(file) if UNTRUSTED.search(step.get("run", ""))] == []


@pytest.mark.parametrize("file", FILES, ids=name)
def test_the_checkout_keeps_no_credentials(file: Path):
    for step in steps(file):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("file", FILES, ids=name)
def test_secrets_are_given_to_single_steps(file: Path):
    document = load(file)
    assert "secrets." not in str(
        {key: value for key, value in document.items() if key not in ("jobs", "runs")}
    )
    for job, content in document.get("jobs", {}).items():
        assert "secrets" not in content, job
        rest = {key: value for key, value in content.items() if key != "steps"}
        assert "secrets." not in str(rest), job
        if "secrets." in str(content):
            assert content["environment"], f"{job}: only an environment has secrets"
    for step in steps(file):
        assert "secrets." not in str({key: value for key, value in step.items() if key != "env"})


def test_no_file_names_a_registry_or_any_other_host():
    for file in FOLDER.rglob("*.y*ml"):
        hosts = re.findall(r"(?:[a-z0-9-]+\.)+(?:com|cloud|dev|io|net|org)\b", file.read_text())
        assert hosts == [], file


def test_every_target_is_one_of_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    matrix = set(jobs(FOLDER / "workflows" / "ci.yaml")["check"]["strategy"]["matrix"]["target"])
    called = {
        target
        for file in FILES
        for line in scripts_of(file)
        for target in re.findall(r"\bmake ([a-z-]+)", line)
    }
    assert called
    assert called | matrix <= targets


def test_ci_checks_what_is_checked_by_hand():
    content = (ROOT / ".ci" / "run").read_text()
    by_hand = set(re.findall(r"^make ([a-z-]+)", content, re.MULTILINE))
    file = FOLDER / "workflows" / "ci.yaml"
    matrix = jobs(file)["check"]["strategy"]["matrix"]["target"]
    called = {target for line in scripts_of(file) for target in re.findall(r"\bmake ([a-z-]+)", line)}
    assert by_hand <= called | set(matrix)


@pytest.mark.parametrize("script", sorted({script for _, script, _ in calls()}))
def test_every_option_of_a_script_is_one_that_it_has(script: str):
    known = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(script)))
    for file, called, options in calls():
        if called == script:
            assert set(options) <= known, f"{file}: {script} has no {set(options) - known}"


def test_the_options_that_people_set_are_ones_that_the_scripts_have():
    """The examples for variables that hold options, in the head of deploy.yaml."""
    head = (FOLDER / "workflows" / "deploy.yaml").read_text().partition("\nname:")[0]
    (example,) = re.findall(r"VALIDATION_OPTIONS\n?.*?\((--.+?)\)", head, re.DOTALL)
    options = {word for word in shlex.split(example) if word.startswith("--")}
    assert options
    for script in ("scripts/validate.py", "scripts/promote.py"):
        assert options <= set(re.findall(r"--[\w-]+", help_of(script)))


def test_shell_scripts_that_are_called_can_be():
    for file in FILES:
        for line in scripts_of(file):
            for script in re.findall(r"scripts/\w+\.sh", line):
                assert (ROOT / script).stat().st_mode & 0o111, script


def test_every_variable_and_secret_is_named_at_the_head():
    for file in WORKFLOWS:
        text = file.read_text()
        head = text.partition("\nname:")[0]
        for used in re.findall(r"(?:vars|secrets)\.(\w+)", text):
            assert used in head, f"{file.name} does not say that it needs {used}"


def test_everything_is_installed_from_locked_requirements():
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"pip install .*", makefile.partition("define install")[2])
    for line in re.findall(r"-m pip install .*", makefile):
        assert "--require-hashes" in line, line
    for file in FILES:
        for line in scripts_of(file):
            assert not re.search(r"\b(pip3?|uv|npm|curl|wget)\b", line), line


def test_the_scripts_run_alone_that_must_put_back_when_a_run_is_cancelled():
    """A runner's signal goes to the shell of a step; `exec` makes that the script."""
    for file in WORKFLOWS:
        for line in scripts_of(file):
            if re.search(r"scripts/(promote|canary)\.py|deploy_image\.py .*--no-wait", line):
                assert line.startswith("exec "), line


@pytest.mark.parametrize(
    ("told", "source"),
    [
        ('{"from": "6", "to": "7", "done": true}', "6"),
        ('{"from": "7", "to": "7", "done": false}', ""),
        ('{"from": null, "to": "7", "done": true}', ""),
        ('{"from": "6", "to": "7", "done": false, "why": "worse"}', ""),
        ("", ""),
    ],
    ids=["moved", "was there already", "the first one", "put back", "nothing was done"],
)
def test_the_model_goes_back_only_where_this_run_has_moved_it(tmp_path: Path, told: str, source: str):
    (tmp_path / "promoted.json").write_text(told)
    assert run_step("production", "Note the previous version", tmp_path) == (0, {"from": source})
    back = step_of("production", "Roll back the alias")
    assert "steps.moved.outputs.from != ''" in back["if"]
    assert '--to "$FROM" --only-from "$MODEL_VERSION"' in back["run"]
    assert step_of("production", "Promote the version in steps, or roll back")["run"].endswith(
        '--json > "$RUNNER_TEMP/promoted.json"\n'
    )


def in_place_of_a_script(folder: Path, script: str, content: str) -> None:
    """Puts another program where a step calls a script."""
    file = folder / script
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{content}\n")
    file.chmod(0o755)


def deploy_jobs() -> dict[str, Any]:
    return jobs(FOLDER / "workflows" / "deploy.yaml")


@pytest.mark.parametrize(
    ("image", "version", "code"), [("", "", 1), ("1.0.0", "", 0), ("", "7", 0), ("1.0.0", "7", 0)]
)
def test_a_run_that_asks_for_nothing_ends_at_once(tmp_path: Path, image: str, version: str, code: int):
    told = run_step(
        "asked", "Require an image, a version, or both", tmp_path, IMAGE=image, MODEL_VERSION=version
    )
    assert told[0] == code
    for job in ("image", "validate", "staging"):
        assert "asked" in deploy_jobs()[job]["needs"]


def test_a_job_that_has_run_out_of_time_is_not_gone_on_from():
    """`!failure()` would be true of it."""
    for job, needs in (
        ("staging", ["asked"]),
        ("approval", ["staging"]),
        ("production", ["staging", "approval"]),
    ):
        condition = deploy_jobs()[job]["if"]
        assert "failure()" not in condition
        assert "!cancelled()" in condition
        for need in needs:
            assert f"needs.{need}.result == 'success'" in condition
    for need in ("image", "validate"):
        either = f"(needs.{need}.result == 'success' || needs.{need}.result == 'skipped')"
        assert either in deploy_jobs()["staging"]["if"]


def test_who_waits_for_an_approval_holds_no_place_in_a_queue():
    everything = deploy_jobs()
    approval = everything["approval"]
    assert approval["environment"] == "approval"
    assert "concurrency" not in approval
    assert "secrets." not in str(approval)
    assert [job for job, content in everything.items() if content.get("environment") == "approval"] == [
        "approval"
    ]
    assert "approval" in everything["production"]["needs"]


def test_only_digests_go_from_job_to_job(tmp_path: Path):
    """An output with the value of a secret in it, such as a user's name in the registry's, would be left out."""
    assert deploy_jobs()["image"]["outputs"] == {"digest": "${{ steps.verify.outputs.digest }}"}
    in_place_of_a_script(tmp_path, "scripts/verify_image.sh", 'echo "$@" > asked; echo "${1%:*}@sha256:12"')
    known = {
        "REGISTRY": "registry.example:5000/team",
        "IMAGE": "1.0.0",
        "GITHUB_SERVER_URL": "https://git.example",
        "GITHUB_REPOSITORY": "a.b/c.d",
    }
    told = run_step("image", "Verify that release.yaml of this repository signed it", tmp_path, **known)
    assert told == (0, {"digest": "sha256:12"})
    image, signer = (tmp_path / "asked").read_text().split()
    assert image == "registry.example:5000/team/model-server:1.0.0"
    assert re.search(signer, "https://git.example/a.b/c.d/.github/workflows/release.yaml@refs/tags/v1.0.0")
    assert not re.search(
        signer, "https://git.example/a-b/c.d/.github/workflows/release.yaml@refs/tags/v1.0.0"
    )


@pytest.mark.parametrize("job", ["staging", "production"])
def test_an_image_without_a_digest_is_not_deployed(tmp_path: Path, job: str):
    in_place_of_a_script(tmp_path, ".venv/bin/python", "touch called")
    told = run_step(
        job, "Apply the manifests with the image", tmp_path, REGISTRY="registry.example", DIGEST=""
    )
    assert told[0] != 0
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("code", [0, 1, 130])
def test_the_image_before_is_known_also_where_applying_fails(tmp_path: Path, code: int):
    in_place_of_a_script(
        tmp_path, ".venv/bin/python", f'echo "$@" > asked; echo \'{{"before": "m:1"}}\'; exit {code}'
    )
    known = {"REGISTRY": "r", "DIGEST": "sha256:12"}
    assert run_step("production", "Apply the manifests with the image", tmp_path, **known)[0] == code
    assert "--image r/model-server@sha256:12 --require Rollout" in (tmp_path / "asked").read_text()
    assert run_step("production", "Note the previous image", tmp_path) == (0, {"before": "m:1"})
    assert step_of("production", "Note the previous image")["if"].startswith("${{ always() ")
    condition = step_of("production", "Roll back to the previous image")["if"]
    assert "steps.apply.outcome != 'skipped'" in condition
    assert "steps.there.outputs.before != ''" in condition
    assert "steps.apply.outcome == 'success'" not in condition


@pytest.mark.parametrize(
    ("told", "code"), [('{"ready": true}', 0), ('{"ready": false}', 1), ('{"done": false}', 1)]
)
def test_an_image_that_stands_at_a_step_is_not_back(tmp_path: Path, told: str, code: int):
    in_place_of_a_script(tmp_path, ".venv/bin/python", f"echo '{told}'")
    assert (
        run_step("production", "Roll back to the previous image", tmp_path, BEFORE="m:1", NAMESPACE="n")[0]
        == code
    )


def test_a_login_does_not_stay_on_a_runner_that_does():
    assert 'export DOCKER_CONFIG="$RUNNER_TEMP/docker"' in step_of("image", "Log in")["run"]


@pytest.mark.parametrize(
    ("job", "missing"),
    [
        ("validate", "VALIDATION_DATA"),
        ("validate", "SERVING_MODEL_NAME"),
        ("staging", "SERVING_MODEL_NAME"),
        ("staging", "SERVICE_URL"),
        ("production", "PROMETHEUS_URL"),
        ("production", "VALIDATION_DATA"),
        ("rollback", "MLFLOW_TRACKING_URI"),
    ],
)
def test_what_is_not_set_is_noticed_before_anything_is_done(tmp_path: Path, job: str, missing: str):
    names = ("MLFLOW_TRACKING_URI", "SERVING_MODEL_NAME", "SERVICE_URL", "VALIDATION_DATA", "PROMETHEUS_URL")
    known = dict.fromkeys(names, "something") | {"MODEL_VERSION": "7"}
    assert run_step(job, "Check the variables", tmp_path, **known)[0] == 0
    assert run_step(job, "Check the variables", tmp_path, **(known | {missing: ""}))[0] != 0
    first = next(step for step in deploy_jobs()[job]["steps"] if "run" in step)
    assert first["name"] == "Check the variables"


def test_only_commits_of_main_are_released(tmp_path: Path):
    release = jobs(FOLDER / "workflows" / "release.yaml")
    (step,) = [one for one in release["commit"]["steps"] if "run" in one]
    assert release["ci"]["needs"] == "commit"
    assert release["commit"]["steps"][0]["with"]["fetch-depth"] == 0

    def git(*words: str) -> None:
        me = ("-c", "user.name=me", "-c", "user.email=me@here.example")
        subprocess.run(["git", *me, *words], cwd=tmp_path, check=True, capture_output=True, timeout=30)

    def code() -> int:
        command = ["bash", "-euo", "pipefail", "-c", step["run"]]
        environment = clean_environment() | {"GITHUB_REF_NAME": "v1"}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, check=False, timeout=30
        ).returncode

    git("init", "--quiet")
    git("commit", "--allow-empty", "--message", "on main")
    git("update-ref", "refs/remotes/origin/main", "HEAD")
    assert code() == 0
    git("commit", "--allow-empty", "--message", "beside it")
    assert code() == 1


def test_the_folder_of_what_is_released_is_made_before_it_is_written_into():
    titles = [step.get("name") for step in jobs(FOLDER / "workflows" / "release.yaml")["build"]["steps"]]
    (build,) = [
        step for step in steps(FOLDER / "workflows" / "release.yaml") if step.get("name") == "Build the image"
    ]
    assert "mkdir -p dist" in build["run"]
    assert titles.index("Build the image") < titles.index("Write the SBOM")
