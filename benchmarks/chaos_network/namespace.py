"""Network namespaces: hosts of our own on one machine, named by the process that made them, and removed with it.

Nothing outside them is touched: virtual cables run from one namespace to another, and there is no way out of them. A janitor, a
process that waits for the end of its parent's pipe, removes them also after a SIGKILL.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = "chaosnet"
FOLDER = Path("/run/netns")  # where `ip netns` keeps them
CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One host's network. `name` is for people; the system's name has the owner's pid in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.full_name = f"{PREFIX}-{os.getpid()}-{name}"

    def make(self) -> None:
        """Raises CalledProcessError."""
        command("ip", "netns", "add", self.full_name)
        self.run("ip", "link", "set", "lo", "up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread's sockets, files of /proc/sys/net and children belong to the namespace meanwhile. Never across an await."""
        with Path("/proc/thread-self/ns/net").open() as before, (FOLDER / self.full_name).open() as own:
            switch(own.fileno())
            try:
                yield
            finally:
                switch(before.fileno())

    def enter(self) -> None:
        """For good, for a thread that lives there."""
        with (FOLDER / self.full_name).open() as own:
            switch(own.fileno())

    def run(self, *words: str, text: str = "") -> str:
        """What the command prints in there. Raises CalledProcessError."""
        with self.entered():
            return command(*words, text=text)


def switch(descriptor: int) -> None:
    """setns(2), which Python has from 3.12 on. Raises OSError."""
    if LIBC.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def command(*words: str, text: str = "") -> str:
    return subprocess.run(words, input=text, capture_output=True, text=True, timeout=20, check=True).stdout


def remove_stale() -> None:
    """Those whose owner has ended, and every process in them."""
    for path in FOLDER.glob(f"{PREFIX}-*"):
        owner = int(path.name.split("-")[1])
        if not Path(f"/proc/{owner}").exists():
            remove(path.name)


def remove_of(owner: int) -> None:
    for path in FOLDER.glob(f"{PREFIX}-{owner}-*"):
        remove(path.name)


def remove(full_name: str) -> None:
    with suppress(subprocess.CalledProcessError):
        for pid in command("ip", "netns", "pids", full_name).split():
            if int(pid) != os.getpid():  # a thread of ours that lives there
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        command("ip", "netns", "delete", full_name)


@contextmanager
def removed_at_the_end(*folders: Path) -> Iterator[None]:
    """What was made inside, and the folders, are gone after it, whatever ends this process."""
    remove_stale()
    program = [sys.executable, "-m", "benchmarks.chaos_network.namespace", str(os.getpid()), *map(str, folders)]
    # A session of its own: Ctrl-C on the terminal must not end it before us.
    with subprocess.Popen(program, stdin=subprocess.PIPE, cwd=Path(__file__).parents[2], start_new_session=True):
        try:
            yield
        finally:
            remove_of(os.getpid())


if __name__ == "__main__":
    sys.stdin.read()  # the pipe ends with the process that holds its other end
    remove_of(int(sys.argv[1]))
    for folder in sys.argv[2:]:
        shutil.rmtree(folder, ignore_errors=True)
