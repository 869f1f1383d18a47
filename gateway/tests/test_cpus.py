"""The CPUs that a process may use, from files as the kernel writes them, and in a real control group."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cpus import num_cpus, num_visible, quota_cpus

V1 = Path("/sys/fs/cgroup/cpu")


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    for name, content in {"proc/self/cgroup": cgroup, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/pod/box\n", {"pod/box/cpu.max": "max 100000\n", "pod/cpu.max": "200000 100000\n"}, 2),
        ("0::/pod/box\n", {"pod/box/cpu.max": "300000 100000\n", "pod/cpu.max": "800000 100000\n"}, 3),
        ("0::/seen/only/by/the/host\n", {"cpu.max": "300000 100000\n"}, 3),
        ("4:cpu,cpuacct:/\n0::/\n", {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "50000\n"}, 5),
        ("1:cpu:/box\n0::/\n", {"cpu/box/cpu.cfs_quota_us": "100000\n", "cpu/box/cpu.cfs_period_us": "100000\n"}, 1),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("3:cpuset:/\n2:cpuacct:/\n", {"cpu.max": "100000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("not a line", {}, None),
    ],
)
def test_the_quota_is_the_smallest_of_the_group_and_those_above(tmp_path, cgroup, files, expected):
    assert quota_cpus(machine(tmp_path, cgroup, files)) == expected


def test_a_machine_without_control_groups_has_no_quota(tmp_path):
    assert quota_cpus(tmp_path) is None
    assert num_cpus(tmp_path) == num_visible()


def test_a_quota_above_the_affinity_changes_nothing(tmp_path):
    assert num_cpus(machine(tmp_path, "0::/\n", {"cpu.max": "6400000 100000\n"})) == num_visible()


@pytest.fixture
def in_group_of_one_cpu():
    """Runs a program in a real control group whose quota is one CPU, and returns what it prints."""
    if not os.access(V1, os.W_OK) or not (V1 / "cpu.cfs_quota_us").exists():
        pytest.skip("no control group of CPU time can be made here")
    group = V1 / f"gateway-test-{os.getpid()}"
    group.mkdir()

    def run(program: str) -> str:
        enter = f"import os; open({str(group / 'cgroup.procs')!r}, 'w').write(str(os.getpid()));"
        return subprocess.run([sys.executable, "-c", enter + program], capture_output=True, text=True, check=True).stdout.strip()

    (group / "cpu.cfs_quota_us").write_text("100000")
    yield run
    group.rmdir()


def test_a_process_in_a_real_control_group_sees_its_quota(in_group_of_one_cpu):
    assert in_group_of_one_cpu("from gateway.cpus import num_cpus; print(num_cpus())") == "1"


def test_the_engine_starts_no_more_streams_and_threads_than_the_quota(in_group_of_one_cpu):
    out = in_group_of_one_cpu(
        "from gateway.engine import runtime; from gateway.config import EngineSettings;"
        "print(runtime._default_streams(), runtime._num_threads(EngineSettings()), runtime._num_threads(EngineSettings(threads=3)))"
    )
    assert out == "1 1 3"
