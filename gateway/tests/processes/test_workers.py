"""How many processes a machine gets, without importing torch."""

import os
import sys

import pytest

from gateway.config.loading import build_config
from gateway.errors import ConfigurationError
from gateway.processes.workers import fronts_for, has_gpu, num_workers


@pytest.mark.parametrize(
    ("cpus", "without_gpu", "with_gpu"),
    [(1, 1, 1), (2, 1, 1), (7, 1, 1), (8, 2, 7), (11, 2, 10), (12, 3, 11), (16, 4, 15), (17, 4, 16), (64, 16, 16), (192, 16, 16)],
)
def test_auto_leaves_most_cores_to_the_engine_or_all_but_one_to_the_fronts_of_a_gpu(cpus, without_gpu, with_gpu):
    assert (fronts_for(cpus, has_gpu=False), fronts_for(cpus, has_gpu=True)) == (without_gpu, with_gpu)


def test_auto_obeys_the_quota_of_the_control_group(tmp_path):
    for name, text in {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert num_workers("auto", tmp_path) == 1  # four CPUs, of however many


@pytest.mark.parametrize("number", [1, 2, 64])
def test_a_number_is_taken(number):
    assert num_workers(build_config({"server": {"workers": number}}).server.workers) == number


@pytest.mark.parametrize("wrong", [0, 65, -1, "many", "2", 1.5, True])
def test_another_number_is_refused_by_name(wrong):
    with pytest.raises(ConfigurationError, match=r"server\.workers"):
        build_config({"server": {"workers": wrong}})


def test_a_platform_without_fork_has_one_process(monkeypatch):
    monkeypatch.delattr(os, "fork")
    assert num_workers("auto") == num_workers(1) == 1
    with pytest.raises(ConfigurationError, match=r"server\.workers is 2"):
        num_workers(2)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Makes a machine with these devices, and an installed torch whose version.py has this line."""

    def make(devices=("nvidia0", "nvidiactl"), torch="cuda: Optional[str] = '12.8'", visible=None):
        (tmp_path / "dev").mkdir()
        for name in devices:
            (tmp_path / "dev" / name).touch()
        if torch is not None:
            (tmp_path / "torch").mkdir()
            (tmp_path / "torch" / "__init__.py").write_text("raise AssertionError('imported')")
            (tmp_path / "torch" / "version.py").write_text(f"__version__ = '2'\n{torch}\nhip: Optional[str] = None\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        monkeypatch.delitem(sys.modules, "torch", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, True),
        ({"torch": "cuda = '11.8'"}, True),
        ({"devices": ["dxg"]}, True),
        ({"visible": "0"}, True),
        ({"visible": "GPU-8932f937"}, True),
        ({"devices": ["nvidia0", "nvidia1"], "visible": "1,0"}, True),
        ({"devices": ["nvidiactl", "null"]}, False),
        ({"torch": "cuda: Optional[str] = None"}, False),
        ({"torch": None}, False),
        ({"visible": ""}, False),
        ({"visible": "-1"}, False),
        ({"visible": "NoDevFiles"}, False),
        ({"visible": "1"}, False),
    ],
)
def test_a_gpu_is_a_device_that_torch_can_use(machine, how, expected):
    assert has_gpu(machine(**how)) == expected
