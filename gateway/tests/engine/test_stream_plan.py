"""Streams and threads of a compiled model, on machines of made-up sizes: /proc, /sys and the affinity are the test's own."""

import pytest

from gateway.config import EngineSettings
from gateway.cpus import CPUs, num_visible, read_cpus
from gateway.engine import openvino_encoder
from gateway.engine.stream_plan import StreamPlan, plan_streams


def of_nodes(*sizes, quota=None):
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    nodes = tuple(frozenset(range(end - size, end)) for size, end in zip(sizes, ends, strict=True))
    return CPUs(frozenset().union(*nodes), quota, nodes)


@pytest.mark.parametrize(
    ("cpus", "expected"),
    [
        (of_nodes(1), StreamPlan(1, 0)),
        (of_nodes(2), StreamPlan(2, 0)),
        (of_nodes(7), StreamPlan(2, 0)),
        (of_nodes(64), StreamPlan(16, 0)),
        (of_nodes(31), StreamPlan(7, 0)),
        (of_nodes(64, quota=4), StreamPlan(2, 4)),
        (of_nodes(64, quota=1), StreamPlan(1, 1)),
        (of_nodes(64, quota=40), StreamPlan(10, 40)),
        (of_nodes(4, quota=64), StreamPlan(2, 4)),
    ],
)
def test_a_machine_of_one_node_has_a_stream_for_four_cpus_within_its_quota(cpus, expected):
    assert plan_streams(EngineSettings(), cpus) == expected


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((32, 32), StreamPlan(16, 0)),
        ((8, 8), StreamPlan(4, 0)),
        ((6, 6), StreamPlan(4, 0)),  # three each: a stream of four would span both
        ((31, 32), StreamPlan(15, 60)),
        ((6, 2), StreamPlan(4, 0)),
        ((5, 3), StreamPlan(8, 0)),
        ((1, 1), StreamPlan(2, 0)),
        ((3, 3, 3, 3), StreamPlan(4, 0)),
        ((24,) * 8, StreamPlan(48, 0)),
    ],
)
def test_on_several_nodes_no_stream_spans_two(sizes, expected):
    plan = plan_streams(EngineSettings(), of_nodes(*sizes))
    assert plan == expected
    width = (plan.threads or sum(sizes)) // plan.streams
    assert sum(size // width for size in sizes) == plan.streams


@pytest.mark.parametrize(
    ("streams", "expected"),
    [
        (2, StreamPlan(2, 0)),
        (4, StreamPlan(4, 0)),
        (5, StreamPlan(5, 0)),  # two threads each would leave 6 of 16 idle
        (8, StreamPlan(8, 0)),
        (15, StreamPlan(15, 15)),
        (1, StreamPlan(1, 0)),
        (64, StreamPlan(64, 0)),
    ],
)
def test_a_number_of_streams_that_was_set_is_kept(streams, expected):
    assert plan_streams(EngineSettings(streams=streams), of_nodes(8, 8)) == expected


@pytest.mark.parametrize(
    ("cpus", "threads", "expected"),
    [
        (of_nodes(64), 4, StreamPlan(2, 4)),
        (of_nodes(32, 32), 4, StreamPlan(2, 4)),
        (of_nodes(64, quota=4), 8, StreamPlan(2, 8)),
        (of_nodes(64), 1, StreamPlan(1, 1)),
        (of_nodes(6, 6), 12, StreamPlan(4, 12)),
        (of_nodes(1), 3, StreamPlan(2, 3)),
    ],
)
def test_there_are_no_more_streams_than_threads_that_were_set(cpus, threads, expected):
    assert plan_streams(EngineSettings(threads=threads), cpus) == expected


def test_a_container_of_4_cpus_of_64_starts_neither_16_streams_nor_64_threads(tmp_path):
    for name, content in {"proc/self/cgroup": "0::/pod\n", "sys/fs/cgroup/pod/cpu.max": "400000 100000\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(content)
    cpus = read_cpus(tmp_path, visible=frozenset(range(64)))
    assert plan_streams(EngineSettings(), cpus) == StreamPlan(2, 4)


def test_threads_are_bound_to_cpus_only_where_they_use_all():
    """Bound ones are counted from the first CPU, in every container of the machine."""
    assert "ENABLE_CPU_PINNING" not in openvino_encoder.stream_options(threads=0, streams=2)
    assert "ENABLE_CPU_PINNING" not in openvino_encoder.stream_options(threads=num_visible(), streams=1)
    if num_visible() > 1:
        assert openvino_encoder.stream_options(threads=1, streams=1)["ENABLE_CPU_PINNING"] == "NO"
