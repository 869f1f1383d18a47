"""Forty mutated model folders, after their originals have been served from the same shelf; `mutation` tries any number."""

import pytest

from gateway.tests.engine import mutation, mutations

SEED, NUMBER = 7, 40
COMPILE_EVERY = 5  # the others run through torch

# What libraries warn of a folder that is broken on purpose.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return mutation.make_bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


async def test_the_originals_are_all_served_as_encode_embeds_them(originals, data):
    assert await mutation.serve_originals(originals, data) == []


@pytest.mark.parametrize("seed", range(SEED, SEED + NUMBER))
async def test_a_mutated_folder_is_refused_or_served_as_encode_embeds_it(seed, originals, data, tmp_path):
    mutant = mutations.mutant(originals, seed, tmp_path)
    outcome, why = await mutation.tried(mutant, data, "openvino" if seed % COMPILE_EVERY == 0 else "torch")
    assert outcome != "wrong", f"{mutant.base}: {mutant.what}: {why}"


@pytest.mark.parametrize("seed", range(8))
async def test_harmless_mutations_are_served(seed, originals, data, tmp_path):
    mutant = mutations.mutant(originals, seed, tmp_path, only=mutations.harmless)
    assert await mutation.tried(mutant, data, "openvino") == ("served", ""), mutant.what


async def test_the_test_itself_notices_a_vector_that_is_not_its_folders(originals, data, tmp_path):
    """Served as it is, and held against a folder whose pooling is another."""
    folder = originals.folders["bert"]
    rows = await mutation.served(folder, data, "torch")
    other = mutation.expected_of(originals.folders["bert-cls-dense"])
    assert mutation.fault(rows, mutation.expected_of(folder)) == ""
    assert "shape" in mutation.fault(rows, other)
    assert "cosine" in mutation.fault(-rows, mutation.expected_of(folder))
    assert "raises" in mutation.fault(rows, ValueError("no"))
