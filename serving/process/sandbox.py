"""What a worker may do with files: listed ones are read, fewer are written, the kernel refuses the rest (Landlock).

Numbers and structures: landlock(7) and Linux' include/uapi/linux/landlock.h.
"""

import contextlib
import ctypes
import logging
import os
import stat
import struct
import sys
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

log = logging.getLogger("serving.sandbox")

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_MAKE_AND_REMOVE = (1 << 13) - (1 << 4)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _MAKE_AND_REMOVE | _REFER | _TRUNCATE
_SINCE = {1: _READ | _WRITE_FILE | _MAKE_AND_REMOVE, 2: _REFER, 3: _TRUNCATE}

_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/sys", "/proc/sys"),
    *(f"/proc/{name}" for name in ("cpuinfo", "loadavg", "meminfo", "stat", "uptime", "version")),
    *("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki/ca-trust", "/etc/ca-certificates"),
    *(f"/etc/{name}" for name in ("ld.so.cache", "localtime", "mime.types", "os-release", "services")),
    *(f"/etc/{name}" for name in ("gai.conf", "host.conf", "hosts", "nsswitch.conf", "resolv.conf")),
    *("/dev/random", "/dev/urandom", "/dev/zero"),
)
_OWN = tuple(
    f"/proc/self/{name}"
    for name in ("cgroup", "fd", "limits", "maps", "mountinfo", "mounts", "stat", "statm", "status")
)
"""Of the process itself. `environ` is not among them: it has what logs in to the registry."""
_SHARED = ("/dev/null", "/dev/shm")  # noqa: S108  # semaphores: without, joblib has one thread

_kept: list[int] = []
"""Descriptors of what is allowed. The kernel may forget inodes that nothing holds, those in /proc for one, and with them
what is allowed of them."""

WRITABLE = ("beats", "metrics", "tmp", "workers")
"""Folders in the run directory that a worker writes in."""

_PRIVATE = ("mlflow.db", "mlruns", "mlartifacts")
"""In a checkout, like every name that begins with a dot: `.env`, `.git`."""

SECRETS = ("MLFLOW_TRACKING_", "MLFLOW_REGISTRY_", "AWS_", "AZURE_", "GOOGLE_", "DATABRICKS_")
"""Beginnings of the variables that log in to the registry and to artifact stores, which workers ask for nothing."""


def confine(readable: Iterable[Path], run_directory: Path) -> None:
    """Leaves this process Python, its libraries and the given files; for good.

    Temporary files go to the run directory from now on. Of other files only what is in them is out of reach: Landlock
    lets a process find them, and change the mode and the times of those that it owns.

    Args:
        readable: files, and folders with all that is below them. What does not exist is left out.
        run_directory: where the folders `WRITABLE` are written, and the pipe `wake`; the rest is read.

    Raises:
        OSError: the kernel has no Landlock, or the process may not use it.
    """
    version = landlock_version()
    handled = sum(rights for since, rights in _SINCE.items() if since <= version)
    ruleset = _call(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    here = Path.cwd()
    libraries = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    imported = [path for path in map(Path.resolve, map(Path, sys.path)) if path != here]
    own = [path for path in here.iterdir() if not path.name.startswith(".") and path.name not in _PRIVATE]
    read: list[str | Path] = [*_SYSTEM, *_OWN, sys.prefix, sys.base_prefix, *libraries, *imported]
    write: list[str | Path] = [*_SHARED, *(run_directory / name for name in (*WRITABLE, "wake"))]
    try:
        for path in [*read, *own, *readable, run_directory]:
            _allow(ruleset, path, _READ & handled)
        for path in write:
            _allow(ruleset, path, _WRITE & handled)
        _allow(ruleset, here, _READ_DIR)
        _end_library_threads()
        _check(
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))
        )
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    os.environ["TMPDIR"] = tempfile.tempdir = str(run_directory / "tmp")


def landlock_version() -> int:
    """Returns which version of Landlock the kernel has.

    Raises:
        OSError: it has none, or the process may not use it.
    """
    return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def without_secrets(environment: dict[str, str]) -> dict[str, str]:
    """Returns the variables that a worker is started with."""
    return {name: value for name, value in environment.items() if not name.startswith(SECRETS)}


def _end_library_threads() -> None:
    """Ends the threads that OpenBLAS began as NumPy was imported; it begins new ones when it needs them.

    Landlock takes effect in the thread that asks for it and in those that it begins. OpenBLAS ends its threads before a
    fork. Source: pthread_atfork in OpenBLAS' blas_server.c.
    """
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # that other threads may hold locks; this child needs none
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    others = len(list(Path("/proc/self/task").iterdir())) - 1
    if others:
        log.warning("%d threads of this worker were there before the sandbox, and are not in it", others)


def _allow(ruleset: int, path: str | Path, rights: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _OF_FILES
        _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
        _kept.append(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    passed = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return _check(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *passed))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
