"""What may go wrong with a gateway that runs: the largest requests all at once, its compiled model spoilt, its disk full."""

import gzip
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from compat_tests.conftest import ENVIRONMENT_KEY, running
from compat_tests.curl import Curl, assert_error
from compat_tests.process import COMPILED, FLOAT32_ROW, START_SECONDS, Gateway
from compat_tests.texts import MAX_INPUTS, MODEL, SAMPLES, prose
from compat_tests.truth import Truth, assert_close
from compat_tests.waiting import until

OwnGateway = Callable[..., Gateway]
MB = 1024 * 1024
MAX_RESIDENT_BYTES = 1500 * MB
TEXTS = list(SAMPLES.values())


def client_of(gateway: Gateway) -> OpenAI:
    return OpenAI(base_url=gateway.base_url, api_key=ENVIRONMENT_KEY, max_retries=0)


def assert_serves(gateway: Gateway, truth: Truth, texts: list[str]) -> None:
    with client_of(gateway) as client:
        assert_close([row.embedding for row in client.embeddings.create(model=MODEL, input=texts).data], truth.vectors(texts))


LARGE_SETTINGS = {
    "GATEWAY__LIMITS__MAX_REQUEST_TOKENS": "20000",
    "GATEWAY__ENGINE__MAX_QUEUE_TOKENS": "25000",
    "GATEWAY__SERVER__MAX_BUFFERED_BYTES": str(64 * MB),
}


def largest_requests(number: int) -> list[bytes]:
    """As large as those settings and the defaults allow: of many inputs, of long inputs, and one that is mostly white space."""
    inputs = (
        [f"{number} {place} a b c" for place in range(MAX_INPUTS)],
        [f"{number} " + "a " * 16_000, f"{number} " + "b " * 3_000],
    )
    padded = json.dumps({"model": MODEL, "input": f"padded {number}"}).encode().ljust(16 * MB)
    return [padded, *(json.dumps({"model": MODEL, "input": texts, "encoding_format": "base64"}).encode() for texts in inputs)]


def test_the_largest_requests_all_at_once_are_each_answered_in_bounded_memory(own_gateway: OwnGateway, truth: Truth) -> None:
    bodies = [body for number in range(5) for body in largest_requests(number)]
    with running(own_gateway(**LARGE_SETTINGS)) as gateway, ThreadPoolExecutor(len(bodies)) as threads:
        answers = list(threads.map(Curl(gateway.origin, ENVIRONMENT_KEY).post, bodies))
        refused = [answer for answer in answers if answer.status != 200]
        for answer in refused:
            assert_error(answer, 503, "server_overloaded", "The server is currently overloaded", error_type="server_error")
            assert 1 <= int(answer.headers["retry-after"]) <= 59
        assert 0 < len(refused) < len(answers)
        assert peak_resident_bytes(gateway) < MAX_RESIDENT_BYTES
        assert_serves(gateway, truth, TEXTS[:1])
        assert gateway.metric("gateway_queue_tokens") == 0
        gateway.stop()


def peak_resident_bytes(gateway: Gateway) -> int:
    return status_bytes(gateway, "VmHWM")


def status_bytes(gateway: Gateway, name: str) -> int:
    """0 where the system does not say."""
    status = Path(f"/proc/{gateway.process.pid}/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


MAX_LEFT_BYTES = 250 * MB  # it was 680 MB without a bound on what is tokenised at once, 340 MB without a trim


def unpacking(*texts: str) -> bytes:
    """A body of some KB that unpacks to megabytes."""
    return gzip.compress(json.dumps({"model": MODEL, "input": texts}).encode(), 9)


def test_bodies_that_are_refused_after_work_leave_no_memory_behind(own_gateway: OwnGateway, truth: Truth) -> None:
    one_too_long = unpacking(*(f"{number} " + "a " * 145_000 for number in range(36)))
    too_many = unpacking(*(f"{number} " + "a " * 2600 for number in range(2000)))
    with running(own_gateway()) as gateway, ThreadPoolExecutor(4) as threads:
        assert_serves(gateway, truth, TEXTS)
        before = status_bytes(gateway, "VmRSS")
        curl = Curl(gateway.origin, ENVIRONMENT_KEY)

        def post(body: bytes) -> int:
            return curl.post(body, headers={**curl.authorization, "Content-Encoding": "gzip"}).status

        assert set(threads.map(post, [one_too_long, too_many] * 3)) == {400}
        assert peak_resident_bytes(gateway) < MAX_RESIDENT_BYTES
        until(lambda: status_bytes(gateway, "VmRSS") < before + MAX_LEFT_BYTES, seconds=60, what="the memory is the system's again")
        assert_serves(gateway, truth, TEXTS[:1])
        gateway.stop()


def test_server_told_twice_to_stop_waits_for_nobody(own_gateway: OwnGateway) -> None:
    texts = [f"{seed} {prose(100, seed)}" for seed in range(MAX_INPUTS)]  # no two alike: ten seconds' work and more
    with running(own_gateway()) as gateway, client_of(gateway) as client, ThreadPoolExecutor(1) as thread:
        bulk = thread.submit(client.embeddings.create, model=MODEL, input=texts)
        until(lambda: gateway.metric("gateway_queue_inputs") > 0, seconds=60, what="the bulk waits for its turn")
        gateway.terminate()
        until(lambda: '"draining"' in gateway.log, seconds=60, what="the gateway knows that it is to stop")
        gateway.terminate()
        assert gateway.wait() == 0, gateway.log
        with pytest.raises((openai.InternalServerError, openai.APIConnectionError)):
            bulk.result(timeout=60)
    assert "Traceback" not in gateway.log


def shelf_of(gateway: Gateway) -> Path:
    return gateway.folder / "data/models"


@pytest.fixture
def compiled(gateway: Gateway) -> Path:
    """What the shared gateway made when it was started."""
    manifests = {path: json.loads(path.read_text(encoding="utf-8")) for path in COMPILED.glob("*/manifest.json")}
    [made] = [
        path.parent
        for path, told in manifests.items()
        if told["asked_precision"] == "float32" and told["source"].endswith("all-MiniLM-L6-v2")  # others' tests share the folder
    ]
    return made


@pytest.fixture
def spoilt(compiled: Path, own_gateway: OwnGateway) -> Gateway:
    """Not yet started, with a copy of that for itself in which one bit of the weights is not as it was."""
    own = own_gateway()
    shelf_of(own).unlink()
    weights = shutil.copytree(compiled, shelf_of(own) / compiled.name) / "model.bin"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    return own


def test_a_spoilt_compiled_model_is_made_again_and_one_deleted_while_it_serves_is_not_missed(spoilt: Gateway, truth: Truth) -> None:
    with running(spoilt) as gateway:
        assert '"compiling_model"' in gateway.log
        assert_serves(gateway, truth, TEXTS)
        shutil.rmtree(shelf_of(gateway))
        assert_serves(gateway, truth, [f"{text} again" for text in TEXTS])
        gateway.stop()


class LittleDisk:
    """A disk of 5 MB for a folder. Where nobody may mount one, no process of the gateway may write a larger file instead."""

    MAX_BYTES = 5 * MB

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = self.mounted(f"size={self.MAX_BYTES}")

    def mounted(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", self.folder]
        return shutil.which("mount") is not None and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def start(self, gateway: Gateway) -> None:
        gateway.start()
        if not self.is_mounted:
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (self.MAX_BYTES, self.MAX_BYTES))

    def grow(self) -> None:
        """There is room now."""
        assert not self.is_mounted or self.mounted(f"remount,size={100 * self.MAX_BYTES}")

    def remove(self) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)


@pytest.fixture
def little_disk(compiled: Path, own_gateway: OwnGateway) -> Iterator[tuple[Gateway, LittleDisk]]:
    """A gateway with its data on such a disk, that may not do without a compiled model and has half a manifest of one."""
    gateway = own_gateway(GATEWAY__MODELS=json.dumps([{**FLOAT32_ROW, "runtime": "openvino"}]))
    shelf_of(gateway).unlink()
    disk = LittleDisk(gateway.folder / "data")
    try:
        (shelf_of(gateway) / compiled.name).mkdir(parents=True)
        manifest = (compiled / "manifest.json").read_bytes()
        (shelf_of(gateway) / compiled.name / "manifest.json").write_bytes(manifest[: len(manifest) // 2])
        yield gateway, disk
    finally:
        disk.remove()


def test_a_full_disk_is_said_in_one_line_and_leaves_nothing_that_is_used_later(
    little_disk: tuple[Gateway, LittleDisk], compiled: Path, truth: Truth
) -> None:
    gateway, disk = little_disk
    disk.start(gateway)
    assert gateway.process.wait(timeout=START_SECONDS) == 2
    *log_lines, last = gateway.log.splitlines()
    assert last.startswith("gateway: ")
    assert "the compiled model cannot be written to" in last
    levels = {json.loads(line)["event"]: json.loads(line)["level"] for line in log_lines}
    assert [event for event, level in levels.items() if level != "info"] == ["model_failed"]
    assert [path.relative_to(shelf_of(gateway)) for path in shelf_of(gateway).rglob("*.*")] == [
        Path(compiled.name, "manifest.json")
    ]
    disk.grow()
    with running(gateway):
        assert_serves(gateway, truth, TEXTS)
        assert {path.name for path in shelf_of(gateway).iterdir()} == {compiled.name}
        gateway.stop()
