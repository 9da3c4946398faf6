"""What a worker may do with files: listed ones are read, fewer are written, the kernel refuses the rest (Landlock).

Numbers and structures: landlock(7) and Linux' include/uapi/linux/landlock.h.
"""

import ctypes
import errno
import os
import stat
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

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


def confine(readable: Iterable[Path], run_directory: Path) -> None:
    """Leaves this thread, and those that it starts, Python, its libraries and the given files; for good.

    Temporary files go to `tmp` in the run directory from now on. Other files can still be found (`stat`), not opened.

    Args:
        readable: files, and folders with all that is below them. What does not exist is left out.
        run_directory: what may be written.

    Raises:
        OSError: the kernel has no Landlock, or the process may not use it.
    """
    version = landlock_version()
    handled = sum(rights for since, rights in _SINCE.items() if since <= version)
    ruleset = _call(_CREATE_RULESET, struct.pack("=Q", handled), 8, 0)
    try:
        libraries = os.environ.get("LD_LIBRARY_PATH", "").split(":")
        python = [
            sys.prefix,
            sys.base_prefix,
            *(entry or "." for entry in sys.path),
            *filter(None, libraries),
        ]
        for path in [*_SYSTEM, *_OWN, *python, *map(str, readable)]:
            _allow(ruleset, path, _READ & handled)
        for path in [*_SHARED, str(run_directory)]:
            _allow(ruleset, path, _WRITE & handled)
        _call_prctl(_PR_SET_NO_NEW_PRIVS)
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


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # it is not there, or may not be read anyway
        return
    if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        rights &= _OF_FILES
    _call(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    _kept.append(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    passed = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return _check(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *passed))


def _call_prctl(option: int) -> None:
    _check(ctypes.CDLL(None, use_errno=True).prctl(option, *map(ctypes.c_ulong, (1, 0, 0, 0))))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
