"""A private authority, and certificates that it has signed."""

import subprocess
from pathlib import Path
from typing import NamedTuple


class Authority(NamedTuple):
    """Files in PEM."""

    certificate: Path
    """Of the authority itself."""
    server: Path
    """For localhost, and its key."""
    client: Path
    """Of a client, and its key."""


def make_authority(folder: Path) -> Authority:
    """Makes an authority that nobody trusts yet, a server's certificate for localhost, and a client's."""
    folder.mkdir(parents=True, exist_ok=True)
    _openssl(
        folder, *_request("authority", "private authority"), "-x509", "-days", "1", "-out", "authority.pem"
    )
    for name, subject in (("server", "localhost"), ("client", "a service")):
        _openssl(folder, *_request(name, subject), "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=DNS:localhost\n")
        _openssl(
            folder,
            *("x509", "-req", "-in", f"{name}.csr", "-CA", "authority.pem", "-CAkey", "authority.key"),
            *("-CAcreateserial", "-days", "1", "-extfile", "names", "-out", f"{name}.pem"),
        )
        with (folder / f"{name}.pem").open("a") as both:
            both.write((folder / f"{name}.key").read_text())
    return Authority(*(folder / f"{name}.pem" for name in ("authority", "server", "client")))


def _request(name: str, subject: str) -> tuple[str, ...]:
    return (
        "req",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        f"/CN={subject}",
        "-keyout",
        f"{name}.key",
    )


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
