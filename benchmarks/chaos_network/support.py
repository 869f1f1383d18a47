"""Whether this machine can do it. What the kernel or its owner does not allow is told apart from what is out of order."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.chaos_network.forwarder import opened_tun
from benchmarks.chaos_network.namespace import Namespace, removed_at_the_end
from gateway.testing.postgres import programs

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21  # linux/capability.h
PACKAGES = {"ip": "iproute2", "nft": "nftables", "redis-server": "redis-server", "unshare": "util-linux"}
NUMGEN = "table ip probe { chain probe { type filter hook forward priority 0; numgen random mod 100 < 30 drop\n }\n }\n"
NOT_IN_THIS_KERNEL = ("No such file or directory", "not supported")  # what nft says of an expression without its module


@dataclass(frozen=True)
class Missing:
    """`is_out_of_order`: the machine should be able to, so that where the tests must run they fail; else they are left out."""

    reason: str
    is_out_of_order: bool


def missing() -> Missing | None:
    """What is missing; None where everything is there."""
    if not Path("/proc/self/ns/net").exists():
        return Missing("there are no network namespaces (Linux with CONFIG_NET_NS)", is_out_of_order=False)
    if not is_privileged():
        return Missing("making namespaces takes CAP_NET_ADMIN and CAP_SYS_ADMIN (root, outside a container)", is_out_of_order=False)
    packages = [package for name, package in PACKAGES.items() if shutil.which(name) is None]
    packages += [] if programs() else ["postgresql"]
    if packages:
        return Missing(f"programs are missing (Debian: apt-get install {' '.join(packages)})", is_out_of_order=True)
    if not any(line.split()[-1] == "tun" for line in Path("/proc/misc").read_text().splitlines()):
        return Missing("the kernel has no TUN (/dev/net/tun)", is_out_of_order=False)
    return tried()


def is_privileged() -> bool:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    held = int(status["CapEff"], 16)
    return all(held >> number & 1 for number in (CAP_NET_ADMIN, CAP_SYS_ADMIN))


def tried() -> Missing | None:
    """A namespace, a rule that drops at random and a TUN, made and removed. With these rights only a kernel without them fails."""
    probe = Namespace("probe")
    try:
        with removed_at_the_end():
            probe.make()
            probe.run("nft", "-f", "-", text=NUMGEN)
            probe.run("ip", "tuntap", "add", "dev", "probe", "mode", "tun")
            with probe.entered(), opened_tun("probe"):
                return None
    except subprocess.CalledProcessError as error:
        told = str(error.stderr).strip()
        is_kernel = error.cmd[0] == "nft" and any(words in told for words in NOT_IN_THIS_KERNEL)
        return Missing(f"{' '.join(error.cmd)}: {told}", is_out_of_order=not is_kernel)
    except OSError as error:
        return Missing(f"a TUN cannot be opened: {error.strerror}", is_out_of_order=True)
