"""Artifact stores on this machine, each with the server that its users test with."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.support.environment import ROOT, free_port, wait_until

AZURITE = ROOT / ".venv" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
"""Installed by `.ci/run`."""

ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own. Source: its documentation; every user of it has the same."""


class Store(NamedTuple):
    """A running store."""

    uri: str
    """Of a folder in it, for artifacts."""
    environment: dict[str, str]
    """Variables by which its client finds it."""


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def s3(folder: Path, bucket: str = "models") -> Iterator[Store]:
    """An S3: moto."""
    import boto3
    from moto.server import ThreadedMotoServer

    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    environment = {
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    try:
        client = boto3.client(
            "s3",
            endpoint_url=environment["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id="key",
            aws_secret_access_key="secret",
            region_name="us-east-1",
        )
        client.create_bucket(Bucket=bucket)
        yield Store(f"s3://{bucket}/artifacts", environment)
    finally:
        server.stop()


@contextlib.contextmanager
def permissions_checked(store: Store) -> Iterator[None]:
    """In the block, moto asks its IAM who may do what.

    Source: `reset_auth` in moto/moto_api/_internal/responses.py: the number of requests until it does.
    """
    url = f"{store.environment['MLFLOW_S3_ENDPOINT_URL']}/moto-api/reset-auth"
    httpx.post(url, content="0").raise_for_status()
    try:
        yield
    finally:
        httpx.post(url, content="inf").raise_for_status()


@contextlib.contextmanager
def gcs(folder: Path) -> Iterator[Store]:
    """A Google Cloud Storage: gcp-storage-emulator."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="models")
    server.start()
    try:
        yield Store("gs://models/artifacts", {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"})
    finally:
        server.stop()


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Store]:
    """An Azure Blob Storage: Azurite."""
    from azure.storage.blob import BlobServiceClient

    if not AZURITE.exists():
        if "CI" in os.environ:
            pytest.fail(f"there is no {AZURITE}")
        pytest.skip(f"there is no {AZURITE}; .ci/run installs it")
    port = free_port()
    process = subprocess.Popen(
        [
            *(AZURITE, "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"),
            *("--silent", "--disableTelemetry"),
        ],
        cwd=folder,
    )
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        f"BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};"
    )
    try:
        wait_until(lambda: _listens(port), 30, "Azurite listens")
        with BlobServiceClient.from_connection_string(connection) as client:
            client.create_container("models")
        yield Store(
            f"wasbs://models@{ACCOUNT}.blob.core.windows.net/artifacts",
            {"AZURE_STORAGE_CONNECTION_STRING": connection},
        )
    finally:
        process.terminate()
        process.wait(20)


STORES = {"s3": s3, "gcs": gcs, "azure": azure}
