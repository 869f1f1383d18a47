"""What a replica answers a call that its embedder refuses: the same error as a model on the gateway's own machine."""

import msgspec
import numpy as np
import pytest

from gateway.calls.message import ClientEvent, EmbedCall, encode
from gateway.calls.packing import pack
from gateway.cluster.application import order_of
from gateway.cluster.embedder import failure
from gateway.cluster.replica import Replica
from gateway.config import Config, ModelRow
from gateway.embedding.embedder import Inputs
from gateway.embedding.vectors import too_many_numbers
from gateway.engine.encoder import Window
from gateway.engine.preprocessor import Windows
from gateway.errors import InvalidValue, Unembeddable
from gateway.testing.fakes import FakeEmbedder, FakeReranker

WINDOWS = Windows([Window([1, 2]), Window([3])], [1, 1], [2, 1])


class Refusing(FakeEmbedder):
    """Finds no vector for its second input."""

    async def embed(self, prepared):
        raise Unembeddable(prepared.inputs.where(1))


class RefusingReranker(FakeReranker, Refusing):
    """The same as a reranker."""


async def error_of(embedder, field="input"):
    """The error that the gateway makes of a replica's answer over `embedder`, without a cluster around it."""
    replica = object.__new__(Replica)
    replica.local, replica.fingerprint_here = embedder, embedder.fingerprint
    replica.config = order_of(ModelRow(name="m", backend="ray", settings={"source": "a"}), Config())
    inputs = Inputs(["", ""], is_array=True, caller="c", deadline=1e12, field=field)
    call = EmbedCall(number=1, seconds=5, caller="c", normalize=True, fingerprint=embedder.fingerprint, field=field)
    header, rows = await replica.embed(encode(call), np.asarray(pack(inputs, WINDOWS)))
    assert rows is None
    return failure(msgspec.msgpack.decode(header, type=ClientEvent))


@pytest.mark.parametrize(("embedder", "field"), [(Refusing(), "inputs"), (RefusingReranker(), "documents")])
async def test_an_error_names_the_input_as_the_client_sent_it(embedder, field):
    error = await error_of(embedder, field=field)
    assert isinstance(error, Unembeddable)
    assert (error.where, error.param) == (f"{field}[1]", field)


async def test_rows_of_too_many_numbers_are_the_clients_mistake():
    embedder = FakeEmbedder()
    embedder.raises = too_many_numbers()
    error = await error_of(embedder)
    assert isinstance(error, InvalidValue)
    assert (error.message, error.param) == (embedder.raises.message, "input")
