"""Limits a worker's access to files: it reads listed ones and writes a few; the kernel denies the rest (Landlock).

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
"""Of the process itself, but not `environ`: it contains the registry's credentials."""
_SHARED = ("/dev/null", "/dev/shm")  # noqa: S108  # semaphores: without them, joblib uses one thread

_kept: list[int] = []
"""Descriptors of allowed paths. The kernel may drop inodes that nothing holds, such as those in /proc, and their rules
with them."""

WRITABLE = ("beats", "drift", "metrics", "tmp", "workers")
"""Folders in the run directory that a worker writes to."""

_PRIVATE = ("mlflow.db", "mlruns", "mlartifacts")
"""In a checkout, like every name that begins with a dot: `.env`, `.git`."""

SECRETS = ("MLFLOW_TRACKING_", "MLFLOW_REGISTRY_", "AWS_", "AZURE_", "GOOGLE_", "DATABRICKS_")
"""Prefixes of variables with credentials of the registry and artifact stores, which workers do not need."""


FEEDBACK_STORE = "SERVING_FEEDBACK_STORE"


def confine(readable: Iterable[Path], run_directory: Path) -> None:
    """Permanently restricts this process to Python, its libraries and the given files.

    Temporary files go to the run directory from now on. Landlock protects only the content of other files: a process
    can still find them, and change the mode and the times of those that it owns.

    Args:
        readable: files, and folders with everything below them. Missing ones are ignored.
        run_directory: the folders `WRITABLE` and the pipe `wake` in it are writable, the rest is readable.

    Raises:
        OSError: the kernel has no Landlock, or denies it to the process.
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
    """Returns the kernel's version of Landlock.

    Raises:
        OSError: it has none, or denies it to the process.
    """
    return _call(_CREATE_RULESET, None, 0, _VERSION_FLAG)


def without_secrets(environment: dict[str, str]) -> dict[str, str]:
    """Returns the variables that a worker is started with."""
    kept = {name: value for name, value in environment.items() if not name.startswith(SECRETS)}
    if FEEDBACK_STORE in kept:  # a worker knows that there is one, not its password
        kept[FEEDBACK_STORE] = "".join(kept[FEEDBACK_STORE].partition("://")[:2])
    return kept


def _end_library_threads() -> None:
    """Ends the threads that OpenBLAS started when NumPy was imported; it starts new ones when needed.

    Landlock applies to the calling thread and the threads that it starts later. OpenBLAS ends its threads before a fork.
    Source: pthread_atfork in OpenBLAS' blas_server.c.
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
        log.warning("%d threads of this worker started before the sandbox, and are not in it", others)


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
