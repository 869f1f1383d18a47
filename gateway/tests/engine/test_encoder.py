"""What an encoder is told and tells: the facts of its network in one place, and the arrays that a network reads."""

import dataclasses

import msgspec
import numpy as np
import pytest

from gateway.calls.message import ReplicaInfo
from gateway.engine.artifact import Manifest
from gateway.engine.encoder import EncoderInfo, NetworkInfo, Window, pad

NETWORK = NetworkInfo(
    dimensions=4, max_tokens=8, pad_id=3, prompts={"query": "q: "}, default_prompt="q: ", is_normalized=True,
    leaves_prompt_out=True, tasks=("query",),
)  # fmt: skip


@pytest.mark.parametrize("holder", [EncoderInfo, Manifest, ReplicaInfo])
def test_who_holds_a_network_repeats_none_of_its_facts(holder):
    fields = {field.name for field in (dataclasses.fields if dataclasses.is_dataclass(holder) else msgspec.structs.fields)(holder)}
    assert "network" in fields
    assert not fields & set(NetworkInfo.__struct_fields__)


def test_every_fact_survives_an_artifact_and_a_message():
    assert msgspec.json.decode(msgspec.json.encode(NETWORK), type=NetworkInfo) == NETWORK
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(NETWORK), type=NetworkInfo) == NETWORK


def test_rows_are_padded_on_the_right_with_the_networks_own_id():
    ids, mask, pooled, routes = pad([Window([5, 6, 7], 2, "query"), Window([8])], length=4, network=NETWORK)
    np.testing.assert_array_equal(ids, [[5, 6, 7, 3], [8, 3, 3, 3]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(pooled, [[0, 0, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(routes, [[1, 1, 1, 1], [0, 0, 0, 0]])


def test_a_network_that_pools_prompts_and_has_no_routes_reads_no_third_array():
    network = msgspec.structs.replace(NETWORK, leaves_prompt_out=False, tasks=())
    assert len(pad([Window([5], 1)], length=1, network=network)) == 2
