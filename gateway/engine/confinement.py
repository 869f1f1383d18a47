"""Confines the process that runs a model's own code. Run as `python -m gateway.engine.confinement CONFINEMENT COMMAND…`.

Landlock (Linux 5.13 and later) lets it read Python, the system's libraries and the model, and write to one folder of its own; from
Linux 6.7 on it opens no TCP connection, and from 6.12 on it signals no other process. Another process's memory and environment are
closed to it. Then it becomes COMMAND. It must run before a library starts threads, which would keep their rights.

Rights and structures are those of linux/landlock.h.
"""

import ctypes
import json
import os
import signal
import struct
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
VERSION, PATH_BENEATH = 1, 1
SET_NO_NEW_PRIVS, SET_PDEATHSIG = 38, 1
DROP_BOUNDING, AMBIENT, CLEAR_AMBIENT = 24, 47, 4
# Of root's capabilities: to read a model that is another user's. With CAP_PERFMON it could read other processes' environments.
KEPT_CAPABILITIES = {1, 2}
NUM_CAPABILITIES = 64
RUN, WRITE, READ, LIST = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE = 1 << 14
ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}  # by the first version that has them
TCP = 0b11  # to bind, and to connect
SCOPES = 0b11  # abstract sockets and signals
NET_SINCE, SCOPES_SINCE, TRUNCATE_SINCE = 4, 6, 3  # versions of Landlock
LIBRARIES = ("/usr", "/lib", "/lib64", "/bin", "/proc", "/sys")
FILES = (
    "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/os-release", "/etc/passwd",
    "/etc/ssl/openssl.cnf", "/dev/urandom", "/dev/random", "/dev/zero",
)  # fmt: skip
PACKAGES = ("site-packages", "dist-packages")


def confined(command: Sequence[str], *, readable: Iterable[Path], writable: Path) -> list[str]:
    """The command that runs `command` confined. `readable` and `writable` are the folders that it needs besides Python's own."""
    confinement = {"readable": [str(path.resolve()) for path in readable], "writable": str(writable.resolve())}
    return [sys.executable, "-m", "gateway.engine.confinement", json.dumps(confinement), *command]


def landlock_version() -> int:
    """0 where the kernel has no Landlock."""
    return max(0, _call(CREATE_RULESET, None, 0, VERSION)) if sys.platform == "linux" else 0


def _confine(rights: Mapping[Path, int], version: int) -> None:
    """Takes all rights from this process but these, by path. Raises OSError if the kernel refuses."""
    handled = ALL_RIGHTS[max(known for known in ALL_RIGHTS if known <= version)]
    attributes = [handled, *([TCP] if version >= NET_SINCE else []), *([SCOPES] if version >= SCOPES_SINCE else [])]
    packed = struct.pack(f"={len(attributes)}Q", *attributes)
    ruleset = _checked(_call(CREATE_RULESET, packed, len(packed), 0))
    for path, right in rights.items():
        if path.exists():
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
            allowed = right & handled if path.is_dir() else right & handled & (RUN | WRITE | READ | TRUNCATE)
            _checked(_call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("=Qi", allowed, opened), 0))
            os.close(opened)
    _checked(_control(SET_NO_NEW_PRIVS, 1))
    _checked(_call(RESTRICT_SELF, ruleset, 0))


def _rights(readable: Sequence[str], writable: str) -> dict[Path, int]:
    """What the compiler needs. Of other folders of sys.path, such as a checkout, only the names, and the gateway's own package."""
    python = [Path(path) for path in (sys.prefix, sys.base_prefix, Path(__file__).parents[1])]
    paths = [Path(path) for path in sys.path if Path(path).is_absolute()]
    packages = [path for path in paths if path.name in PACKAGES]
    whole = [*map(Path, LIBRARIES), *map(Path, FILES), *python, *packages, *map(Path, readable)]
    return {
        **dict.fromkeys(paths, LIST),
        **dict.fromkeys((path.resolve() for path in whole), RUN | READ | LIST),
        Path("/dev/null"): READ | WRITE,
        Path(writable): ALL_RIGHTS[max(ALL_RIGHTS)],
    }


def _drop_capabilities() -> None:
    """Of a root that runs the gateway; anyone else has none to drop."""
    _control(AMBIENT, CLEAR_AMBIENT)
    for capability in set(range(NUM_CAPABILITIES)) - KEPT_CAPABILITIES:
        _control(DROP_BOUNDING, capability)


def _call(number: int, *arguments: object) -> int:
    # The system call's own arguments: integers are longs, bytes are pointers
    typed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    return int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *typed))


def _control(option: int, value: int) -> int:
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main() -> None:
    confinement, command = json.loads(sys.argv[1]), sys.argv[2:]
    version = landlock_version()
    if sys.platform == "linux":
        _control(SET_PDEATHSIG, signal.SIGKILL)  # a gateway that is killed leaves no code of a model's running
        _drop_capabilities()
    if version:
        _confine(_rights(confinement["readable"], confinement["writable"]), version)
    os.execv(command[0], command)  # noqa: S606 - the compiler's own command


if __name__ == "__main__":
    main()
