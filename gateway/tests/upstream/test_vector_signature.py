"""Signatures live as long as the indexes they are written beside: the same for ever, and for all who measure the same."""

import numpy as np

from gateway.config import ModelRow
from gateway.embedding.embedder import Health
from gateway.embedding.model import Model
from gateway.testing.fakes import FakeEmbedder
from gateway.testing.upstream_server import Weights
from gateway.upstream.probe import TEXTS, Reference, unit
from gateway.upstream.vector_signature import NUM_BITS, signature_of


def reference(weights, noise=0.0):
    return Reference(unit(weights.rows(list(TEXTS))), noise)


def num_differing(one, other):
    return (one.bits ^ other.bits).bit_count()


def test_it_is_what_it_was():
    """Another value here changes the fingerprint of every upstream: indexes that pin one would be refused."""
    rows = np.sin(np.arange(24, dtype=np.float64)).reshape(3, 8)
    assert str(signature_of(Reference(unit(rows.astype(np.float32)), 0.0))) == "32084120"


def test_other_models_differ_in_about_half_of_it_and_neighbours_in_little():
    one, other, near = (signature_of(reference(each)) for each in (Weights("a"), Weights("b"), Weights("a", near=0.1)))
    assert NUM_BITS / 4 < num_differing(one, other) < NUM_BITS * 3 / 4
    assert 0 < num_differing(one, near) < NUM_BITS / 4


def test_noise_turns_next_to_nothing_and_what_it_turns_is_known_to_be_unsure():
    num_others = 0
    for seed in range(100):
        quiet = signature_of(reference(Weights(str(seed)), 0.001))
        noisy = signature_of(reference(Weights(str(seed), noise=0.001), 0.001))
        num_others += quiet.bits != noisy.bits
        assert str(noisy) in quiet.alike or str(quiet) in noisy.alike
    assert num_others <= 5


def test_a_pinned_fingerprint_that_noise_may_have_made_is_the_models_own():
    class Measured(FakeEmbedder):
        def describe(self):
            from dataclasses import replace

            return replace(super().describe(), alike=("a-neighbour",))

    embedder = Measured(fingerprint="found")
    embedder.state = Health("ready")
    model = Model(ModelRow(name="m", fingerprint="a-neighbour"), embedder)
    model.check()
    assert model.describe().fingerprint == model.fingerprint_of() == "a-neighbour"
    assert not Model(ModelRow(name="m", fingerprint="another"), embedder).is_pinned("found")
