"""The CPUs that a process may use, from files as the kernel writes them, and in a real control group."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cpus import cpu_flags, num_cpus, num_visible, quota_cpus, read_cpus

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


def on_nodes(root: Path, *cpulists: str) -> Path:
    """A machine of these NUMA nodes, without a quota."""
    for number, cpulist in enumerate(cpulists):
        (root / f"sys/devices/system/node/node{number}").mkdir(parents=True)
        (root / f"sys/devices/system/node/node{number}/cpulist").write_text(f"{cpulist}\n")
    return root


@pytest.mark.parametrize(
    ("cpulists", "visible", "expected"),
    [
        (["0-3"], range(4), [{0, 1, 2, 3}]),
        (["0-1,4-5", "2-3,6"], range(7), [{0, 1, 4, 5}, {2, 3, 6}]),
        (["0-31", "32-63"], range(32, 40), [set(range(32, 40))]),  # a cpuset of one node
        (["0-31", "32-63"], [31, 32, 33], [{31}, {32, 33}]),
        (["0-1", "", "2-3"], range(4), [{0, 1}, {2, 3}]),  # a node of memory alone
        (["0"], range(2), [{0, 1}]),  # a CPU that is on no node
        (["0", "nonsense"], range(2), [{0, 1}]),
        ([], range(2), [{0, 1}]),
        ([str(number) for number in range(12)], range(12), [{number} for number in range(12)]),  # node10 after node9
    ],
)
def test_nodes_are_those_of_the_cpus_that_may_be_used(tmp_path, cpulists, visible, expected):
    assert list(read_cpus(on_nodes(tmp_path, *cpulists), visible=frozenset(visible)).nodes) == expected


def test_this_machine_s_nodes_have_each_cpu_once():
    cpus = read_cpus()
    assert sorted(cpu for node in cpus.nodes for cpu in node) == sorted(cpus.visible)
    assert cpus.num_usable == num_cpus()


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu amx_bf16\nbugs\t\t: spectre_v1\n\nprocessor\t: 1\nflags\t\t: fpu\n", {"fpu", "amx_bf16"}),
        ("processor\t: 0\nvmx flags\t: vnmi\n", set()),
        ("processor\t: 0\nFeatures\t: bf16 sve\n", {"bf16", "sve"}),
        ("", set()),
        (None, set()),
    ],
)
def test_the_cpu_s_flags_are_those_of_its_first_core(tmp_path, cpuinfo, expected):
    if cpuinfo is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/cpuinfo").write_text(cpuinfo)
    assert cpu_flags(tmp_path) == expected


def test_a_quota_of_4_cpus_of_64_is_4(tmp_path):
    root = machine(on_nodes(tmp_path, "0-31", "32-63"), "0::/pod\n", {"pod/cpu.max": "400000 100000\n"})
    cpus = read_cpus(root, visible=frozenset(range(64)))
    assert (cpus.num_usable, len(cpus.visible), len(cpus.nodes)) == (4, 64, 2)


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
        "from gateway.engine.stream_plan import plan_streams; from gateway.config import EngineSettings;"
        "from gateway.cpus import read_cpus;"
        "print(*(plan_streams(EngineSettings(threads=each), read_cpus()) for each in (0, 3)))"
    )
    assert out == "StreamPlan(streams=1, threads=1) StreamPlan(streams=2, threads=3)"
