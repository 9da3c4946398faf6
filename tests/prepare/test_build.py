"""Prepared models on disk: named so that BentoML takes them, whole or not there at all."""

import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from serving.model import prepared
from serving.model.prepared import (
    Manifest,
    find_prepared,
    open_prepared,
    preparing,
    publish,
    store_name,
    store_version,
)
from tests.support.manifests import some_manifest

processes = multiprocessing.get_context("spawn")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty BentoML home."""
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    return tmp_path


def manifest_of(name: str = "churn", version: str = "3", digest: str = "d" * 64, **fields) -> Manifest:
    return some_manifest(name=name, version=version, digest=digest, **fields)


def fill(folder: Path, text: str = "weights") -> None:
    (folder / "mlflow").mkdir()
    (folder / "mlflow" / "model.bin").write_text(text)
    (folder / "examples.json").write_text('{"instances": [{"a": 1.0}]}')


def prepare(manifest: Manifest, text: str = "weights"):
    with preparing(manifest.name) as folder:
        fill(folder, text)
        return publish(folder, manifest)


ODD_NAMES = [
    "churn",
    "Churn",
    "CHURN",
    "churn model",
    "churn/model",
    "churn-model",
    "churn_model",
    "churn.model",
    "churn ",
    " churn",
    ".churn",
    "-churn-",
    "Kündigung",
    "解約",
    "顧客",
    "...",
    "---",
    "a" * 63,
    "a" * 64,
    "a" * 65,
    "A" * 200,
    "x" * 49 + "." + "y" * 50,
    "main.default.churn",
    "../../etc/passwd",
    "a\nb",
    "💥",
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # BentoML's own, as it is imported
@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_store_name_is_a_valid_bentoml_tag(name):
    from bentoml import Tag

    version = store_version(some_manifest())
    tag = Tag.from_str(f"{store_name(name)}:{version}")
    assert tag.name == store_name(name)
    assert tag.version == version


def test_two_models_never_share_a_store_name():
    assert len({store_name(name) for name in ODD_NAMES}) == len(ODD_NAMES)


def test_a_name_that_bentoml_takes_is_kept():
    assert [store_name(name) for name in ("churn", "churn-model", "churn.model_2", "a" * 63)] == [
        "churn",
        "churn-model",
        "churn.model_2",
        "a" * 63,
    ]


def test_a_version_differs_by_digest_and_begins_with_mlflows():
    one, other = (store_version(some_manifest(digest=digit * 64)) for digit in "ab")
    assert one != other
    assert one.startswith("3-")


def test_what_was_published_is_opened_again():
    manifest = manifest_of()
    published = prepare(manifest)
    opened = open_prepared(published.tag)
    assert opened.manifest == manifest
    assert opened.schema.names == ["a"]
    assert json.loads(opened.examples) == {"instances": [{"a": 1.0}]}
    assert (opened.folder / "mlflow" / "model.bin").read_text() == "weights"


READ_BY_BENTOML = """
import bentoml, json, sys
model, latest = bentoml.models.get(sys.argv[1]), bentoml.models.get(sys.argv[2] + ":latest")
print(json.dumps({
    "tags": sorted(str(model.tag) for model in bentoml.models.list()),
    "latest": str(latest.tag),
    "path": model.path,
    "labels": model.info.labels,
    "metadata": model.info.metadata,
    "created": model.info.creation_time.isoformat(),
}))
"""


def test_bentoml_reads_what_was_published():
    """In a process of its own, since BentoML remembers its home."""
    first = prepare(manifest_of("Kündigung/v1", version="9"))
    last = prepare(manifest_of("Kündigung/v1", version="10"))
    command = [sys.executable, "-c", READ_BY_BENTOML, first.tag, store_name("Kündigung/v1")]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert said == {
        "tags": sorted([first.tag, last.tag]),
        "latest": last.tag,
        "path": str(first.folder),
        "labels": {
            "mlflow.name": "Kündigung/v1",
            "mlflow.version": "9",
            "mlflow.run_id": "r1",
            "digest": "d" * 64,
        },
        "metadata": {"task": "classification", "runtime": "native", "flavors": ["sklearn"]},
        "created": "2024-01-01T00:00:00+00:00",
    }


def test_a_version_is_found_by_what_the_registry_says_of_it():
    published = prepare(manifest_of(version="1", source_key="here"))
    prepare(manifest_of(version="11", source_key="here"))
    assert find_prepared("churn", "1", "here") == published
    assert find_prepared("churn", "1", "there") is None
    assert find_prepared("churn", "2", "here") is None
    assert find_prepared("other", "1", "here") is None


def test_what_was_prepared_with_other_libraries_is_not_found():
    prepare(manifest_of(libraries={"numpy": "1"}))
    assert find_prepared("churn", "3", "key", {"numpy": "1"}) is not None
    assert find_prepared("churn", "3", "key", {"numpy": "2"}) is None


def test_what_is_damaged_or_of_another_format_is_not_found():
    published = prepare(manifest_of())
    file = published.folder / "manifest.json"
    whole = file.read_bytes()
    for content in (whole[:100], b"", b"{}", msgspec.json.encode(manifest_of(format=prepared.FORMAT + 1))):
        file.write_bytes(content)
        assert find_prepared("churn", "3", "key") is None
    file.write_bytes(whole)
    assert find_prepared("churn", "3", "key") is not None
    file.unlink()
    assert find_prepared("churn", "3", "key") is None


def test_publishing_the_same_again_replaces_all_of_it(home):
    first = prepare(manifest_of(), "old")
    second = prepare(manifest_of(prepared_at="2025-01-01T00:00:00+00:00"), "new")
    assert first.folder == second.folder
    assert (second.folder / "mlflow" / "model.bin").read_text() == "new"
    assert open_prepared(second.tag).manifest.prepared_at.startswith("2025")
    with preparing("churn") as folder:
        assert list((home / "preparing").glob("*.tmp")) == [folder]


@pytest.mark.parametrize("other", [{"source_key": "of another registry"}, {"libraries": {"numpy": "9"}}])
def test_what_was_prepared_for_others_stays_beside_it(home, other):
    first = prepare(manifest_of(), "ours")
    second = prepare(manifest_of(**other), "theirs")
    assert (first.folder / "mlflow" / "model.bin").read_text() == "ours"
    assert (second.folder / "mlflow" / "model.bin").read_text() == "theirs"


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_full_disk_leaves_nothing_in_the_store(home, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (os, "fsync"), "rename": (Path, "rename")}[call], full)
        with pytest.raises(OSError, match="No space"):
            prepare(manifest_of())
    assert not list((home / "models").glob("*/*"))
    assert not list((home / "preparing").glob("*.tmp"))
    assert prepare(manifest_of()).folder.exists()


def test_what_is_not_published_is_gone_afterwards(home):
    with contextlib.suppress(RuntimeError), preparing("churn") as folder:
        fill(folder)
        raise RuntimeError
    assert not folder.exists()
    assert not (home / "models").exists()


def hold(home: str, name: str, said, leave: Path) -> None:
    """In another process: prepares until told to leave."""
    os.environ["BENTOML_HOME"] = home
    said.put("here")
    with preparing(name) as folder:
        (folder / "half").write_text("written")
        said.put(str(folder))
        while not leave.exists():
            time.sleep(0.02)
        said.put((folder / "half").exists())


@pytest.fixture
def holder(home):
    """Returns what starts a process that prepares a model, and the file that ends it."""
    started, leave = [], home / "leave"

    def start(name: str):
        said = processes.Queue()
        process = processes.Process(target=hold, args=(str(home), name, said, leave), daemon=True)
        process.start()
        started.append(process)
        assert said.get(timeout=60) == "here"
        return process, said

    yield start, leave
    leave.touch()
    for process in started:
        process.join(10)


def test_a_second_process_waits_until_the_first_is_done(holder):
    start, leave = holder
    _, first = start("churn")
    folder = Path(first.get(timeout=60))
    _, second = start("churn")
    time.sleep(1)
    assert second.empty()
    assert folder.exists()
    leave.touch()
    assert first.get(timeout=60) is True
    assert second.get(timeout=60) != str(folder)


def test_what_a_killed_process_left_behind_is_removed(home, holder):
    start, _ = holder
    process, queue = start("churn")
    left_over = Path(queue.get(timeout=60))
    process.kill()
    process.join(10)
    assert left_over.exists()
    with preparing("churn") as folder:
        assert list((home / "preparing").glob("*.tmp")) == [folder]


@pytest.mark.parametrize("name", ["retention", "churn.v2"])
def test_another_model_is_prepared_at_the_same_time_undisturbed(holder, name):
    start, leave = holder
    _, queue = start(name)
    folder = Path(queue.get(timeout=60))
    with preparing("churn"):
        assert (folder / "half").exists()
    leave.touch()
    assert queue.get(timeout=60) is True


def test_the_store_name_of_a_changed_name_ends_with_its_hash():
    assert store_name("Churn") == f"churn-{hashlib.sha256(b'Churn').hexdigest()[:8]}"
