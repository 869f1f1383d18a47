"""Streams apart, and their cores together for what runs alone."""

import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from gateway.engine import artifact, openvino_encoder
from gateway.engine.encoder import OutOfMemory, Window
from gateway.engine.latency_network import LENGTHS, BucketedNetwork, LatencyNetwork
from gateway.engine.model_size import packed_bytes
from gateway.engine.openvino_encoder import ALONE_TOKENS, LENGTH_STEP
from gateway.tests.engine.test_weights import run

SHORT = [Window([2, 7, 8, 9, 3]), Window([2, 11, 3])]
MADE_SECONDS = 60


def loaded(place, *, threads, streams):
    """With the network of all cores, where there is to be one."""
    encoders = openvino_encoder.load("m", place, artifact.read(place), threads=threads, streams=streams)
    assert encoders[0].latency.network is None
    encoders[0].latency.start()
    assert encoders[0].latency.is_made.wait(MADE_SECONDS)
    return encoders


def one(length):
    return [Window([2, *(7 + number % 10 for number in range(length - 2)), 3])]


def test_only_one_at_a_time_is_alone():
    latency = LatencyNetwork()
    with latency.working() as first:
        with latency.working() as second:
            pass
        with latency.working() as third:
            pass
    with latency.working() as fourth:
        pass
    assert (first, second, third, fourth) == (True, False, False, True)


@pytest.mark.parametrize(
    ("threads", "streams", "has_more_together"), [(2, 2, True), (8, 4, True), (1, 1, False), (2, 1, False), (1, 2, False)]
)
def test_there_is_a_request_of_all_cores_where_a_stream_has_few(place, threads, streams, has_more_together):
    encoders = loaded(place, threads=threads, streams=streams)
    assert len(encoders) == streams
    assert {encoder.latency for encoder in encoders} == {encoders[0].latency}
    assert (encoders[0].latency.network is not None) is has_more_together


def test_alone_and_in_company_the_vectors_are_the_same(place):
    encoder, _ = loaded(place, threads=2, streams=2)
    alone = encoder.embed(SHORT)
    with encoder.latency.working():
        in_company = encoder.embed(SHORT)
    np.testing.assert_allclose(alone, in_company, atol=1e-5)


def test_attention_that_is_taken_apart_gives_the_same_vectors(place, monkeypatch):
    manifest = structs.replace(artifact.read(place), precision="bfloat16")
    found = []
    for flags in ({"avx512_bf16"}, {"avx512_bf16", "amx_bf16"}):
        monkeypatch.setattr(openvino_encoder, "cpu_flags", lambda flags=flags: flags)
        [encoder] = openvino_encoder.load("m", place, manifest, threads=1, streams=1)
        found.append(encoder.embed(SHORT))
    assert (found[0] * found[1]).sum(axis=1).min() > 0.999
    layers = [node.get_rt_info()["layerType"].astype(str) for node in running(encoder).get_runtime_model().get_ops()]
    assert "Softmax" in layers
    assert "Subgraph" not in layers  # of snippets


def running(encoder):
    return encoder.network.request.get_compiled_model()


def test_attention_over_long_texts_is_not_taken_apart(place, monkeypatch):
    """Its scores would be whole in memory."""
    monkeypatch.setattr(openvino_encoder, "cpu_flags", lambda: {"amx_bf16"})
    manifest = structs.replace(artifact.read(place), precision="bfloat16")
    assert "SNIPPETS_MODE" in openvino_encoder.options(manifest)
    network = structs.replace(manifest.network, max_tokens=openvino_encoder.SHORT_TOKENS + 1)
    assert "SNIPPETS_MODE" not in openvino_encoder.options(structs.replace(manifest, network=network))


def test_a_text_alone_of_any_length_has_the_vector_that_it_has_in_company(place):
    encoder, _ = loaded(place, threads=2, streams=2)
    assert encoder.latency.network.lengths
    longest = encoder.info.network.max_tokens
    for length in [*range(2, longest), 5, longest, 5]:
        alone = encoder.embed(one(length))
        with encoder.latency.working():
            in_company = encoder.embed(one(length))
        np.testing.assert_allclose(alone, in_company, atol=1e-5, err_msg=str(length))


def test_one_text_is_padded_to_the_branch_it_takes_and_two_are_not(place):
    encoder, _ = loaded(place, threads=2, streams=2)
    together = encoder.latency.network
    shapes = {}
    for name, windows in {"one": one(3), "two": one(3) * 2}.items():
        encoder.embed(windows)
        shapes[name] = tuple(together.request.input_tensors[0].shape)
    assert shapes == {"one": (1, LENGTHS[0]), "two": (2, LENGTH_STEP)}
    assert [together.length(1, length) for length in (8, 16, 24)] == [16, 16, 24]
    assert together.length(1, max(LENGTHS) + 1) == max(LENGTHS) + 1


def test_a_large_network_has_no_branches(place, monkeypatch):
    monkeypatch.setattr(openvino_encoder, "MAX_BRANCHED_BYTES", 10)
    encoder, _ = loaded(place, threads=2, streams=2)
    assert not encoder.latency.network.lengths
    assert encoder.embed(one(5)).shape == (1, encoder.info.network.dimensions)


class OtherNetwork(BucketedNetwork):
    """Gives other rows than it should to texts of more than 20 tokens."""

    def rows(self, arrays):
        rows = super().rows(arrays)
        return rows[:, ::-1] if arrays[0].shape[1] > 20 else rows


def test_a_network_of_all_cores_with_other_vectors_is_done_without(place, monkeypatch, capsys):
    monkeypatch.setattr(openvino_encoder, "BucketedNetwork", OtherNetwork)
    encoder, company = loaded(place, threads=2, streams=2)
    assert encoder.latency.network is None
    assert "its vector of 23 tokens is another" in capsys.readouterr().out
    np.testing.assert_array_equal(encoder.embed(one(23)), company.embed(one(23)))


def test_the_table_of_words_makes_no_network_large(place, monkeypatch):
    packed = packed_bytes(place, artifact.read(place))
    assert 0 < packed < (place / artifact.WEIGHTS).stat().st_size
    monkeypatch.setattr(openvino_encoder, "MAX_BRANCHED_BYTES", packed)
    encoder, _ = loaded(place, threads=2, streams=2)
    assert encoder.latency.network.lengths


def test_a_network_of_all_cores_that_cannot_be_made_is_done_without(place, capsys):
    encoder, _ = openvino_encoder.load("m", place, artifact.read(place), threads=2, streams=2)
    expected = encoder.embed(one(5))

    def fail():
        raise RuntimeError("no such operation\nand its trace")

    encoder.latency.make = fail
    encoder.latency.start()
    assert encoder.latency.is_made.wait(MADE_SECONDS)
    assert encoder.latency.network is None
    np.testing.assert_array_equal(encoder.embed(one(5)), expected)
    assert "no_network_of_all_cores" in (said := capsys.readouterr().out)
    assert "its trace" not in said


def test_a_small_batch_alone_runs_on_all_cores_and_no_other_does(place):
    encoder, other = loaded(place, threads=2, streams=2)
    together = encoder.latency.network.request
    encoder.embed(SHORT)
    assert together.input_tensors[0].shape[0] == len(SHORT)
    other.embed(SHORT * (ALONE_TOKENS // len(SHORT)))
    with encoder.latency.working():
        other.embed(SHORT[:1])
    assert encoder.latency.network.request is together
    assert together.input_tensors[0].shape[0] == len(SHORT)


class Forgetful:
    """A request that is asked once more, and does nothing: what OpenVINO was seen to do when it had no memory left."""

    def __init__(self, request):
        self.request = request
        self.answers = [True, False, True]

    def infer(self, arrays, **options):
        if self.answers.pop(0):
            return self.request.infer(arrays, **options)
        return [self.request.output_tensors[0].data]


def test_rows_that_were_given_before_are_not_given_again(place):
    [encoder] = loaded(place, threads=1, streams=1)
    encoder.network.request = Forgetful(encoder.network.request)
    first = encoder.embed(SHORT)
    with pytest.raises(OutOfMemory):
        encoder.embed(SHORT)
    np.testing.assert_array_equal(encoder.embed(SHORT), first)


@pytest.mark.skipif(sys.platform != "linux", reason="address space can be limited on Linux alone")
def test_want_of_memory_is_said_so_and_is_no_end(place):
    """For real, in a process whose address space may grow by 200 MB."""
    code = f"""
        import resource
        from pathlib import Path
        from gateway.engine import artifact, openvino_encoder
        from gateway.engine.encoder import OutOfMemory, Window

        place = Path("{place}")
        [encoder] = openvino_encoder.load("m", place, artifact.read(place), threads=1, streams=1)
        encoder.embed([Window([2, 3])])
        [size] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmSize")]
        resource.setrlimit(resource.RLIMIT_AS, (int(size) * 1024 + 200 * 2**20, resource.RLIM_INFINITY))
        for num_rows in (10, 15_000):
            try:
                print(encoder.embed([Window([5] * 32)] * num_rows).shape)
            except OutOfMemory:
                print("out of memory")
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(encoder.embed([Window([2, 3])]).shape)
    """
    ended = run(code, HF_HUB_OFFLINE="1")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == ["(10, 32)", "out of memory", "(1, 32)"]


def test_one_text_alone_runs_on_all_cores_whatever_its_length(place):
    encoder, _ = loaded(place, threads=2, streams=2)
    longest = encoder.info.network.max_tokens
    encoder.embed(one(longest))
    assert encoder.latency.network.request.input_tensors[0].shape[1] == longest
    encoder.embed(one(longest) * (ALONE_TOKENS // longest + 1))
    assert encoder.latency.network.request.input_tensors[0].shape[0] == 1


def test_two_encoders_of_one_stream_give_the_vectors_of_one(place):
    [alone] = openvino_encoder.load("m", place, artifact.read(place), threads=2, streams=1)
    encoders = openvino_encoder.load("m", place, artifact.read(place), threads=2, streams=1, encoders=2)
    texts = [one(length) * 3 for length in (5, 9, 30)]
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda encoder: [encoder.embed(text) for text in texts], encoders))
    for given, expected in zip(zip(*rows, strict=True), map(alone.embed, texts), strict=True):
        np.testing.assert_allclose(given, [expected] * 2, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="pages are given back on Linux alone")
def test_weights_that_were_packed_leave_the_memory_and_come_back_where_they_are_read(place):
    encoder, _ = openvino_encoder.load("m", place, artifact.read(place), threads=2, streams=2)
    texts = [one(30), one(9) * 2]
    expected = [encoder.embed(text) for text in texts]
    assert resident(place) > 0
    encoder.latency.start()
    assert encoder.latency.is_made.wait(MADE_SECONDS)
    assert resident(place) == 0
    for text, rows in zip(texts, expected, strict=True):
        np.testing.assert_allclose(encoder.embed(text), rows, atol=1e-5)
    assert resident(place) > 0


def resident(place):
    """Of the weights file's mappings in this process, in kB."""
    maps = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    return sum(int(re.search(r"^Rss: +(\d+)", part, re.MULTILINE)[1]) for part in maps if str(place / artifact.WEIGHTS) in part)
