"""What the schemas of text-embeddings-inference's bodies allow, its parsers take, and nothing else."""

import json
from itertools import product

import jsonschema
import pytest

from gateway.api.openapi.json_schema import components
from gateway.api.openapi.tei_operations import TEI_OPERATIONS, TEI_PARSED
from gateway.errors import ClientError
from gateway.wire import tei, tei_predict, tei_sparse, tei_tokenize

SCHEMAS = components(TEI_PARSED, [])
TEXTS = ["", "a", ["a"], ["a", ""], [], None, 5, {}, True]
IDS = [[1], [[1]], [[1], [2, 3]], [[]], [[1], []], [1, [2]], [-1], [1.5], [2**32], [True], [[[1]]]]
INPUTS = [{"inputs": each} for each in [*TEXTS, *IDS, ["a", [1]], ["a", 1], [["a", "b"]], [["a"], "b"], ["a"] * 3, ["a"] * 2049]]
TRUNCATIONS = [
    {name: value}
    for name, values in {
        "truncate": (True, None, 5), "truncation_direction": ("Right", "right", "up", None), "prompt_name": ("p", 5), "x": (1,),
    }.items()
    for value in values
]  # fmt: skip
TRUNCATIONS += [  # what one allows, the other may forbid
    {"truncate": truncate, "truncation_direction": direction}
    for truncate, direction in product((True, False, None), ("Left", "left", "Right", "right"))
] + [{"truncation_direction": "Left"}, {"truncation_direction": "left"}]
OPTIONS = [
    *TRUNCATIONS,
    *({"dimensions": each} for each in (0, 1, -1, 1.5, 2**63, None)),
    *({"normalize": each} for each in (False, None)),
]
SENTENCES = {"source_sentence": "a", "sentences": ["b"]}
EMBED = [*INPUTS, {}, *({"inputs": "a", **option} for option in OPTIONS)]
BODIES = {
    "/embed": (tei.decode_embed, EMBED),
    "/embed_sparse": (tei_sparse.decode, EMBED),
    "/similarity": (
        tei.decode_similarity,
        [
            {}, *INPUTS, *({"inputs": SENTENCES, "parameters": option} for option in [*TRUNCATIONS, None, [], {}]),
            *({"inputs": SENTENCES | {"sentences": each}} for each in [*TEXTS, [[1]], ["a"] * 2048]),
            *({"inputs": SENTENCES | {"source_sentence": each}} for each in TEXTS), {"inputs": {"sentences": ["a"]}},
        ],
    ),
    "/": (tei.decode_any, [*EMBED, {"inputs": SENTENCES}, *({"inputs": SENTENCES, "parameters": each} for each in TRUNCATIONS)]),
    "/vertex": (
        tei.decode_vertex,
        [{}, *({"instances": each} for each in [None, [], {}, [{}], ["a"], [{"inputs": "a"}] * 2, *([each] for each in EMBED)])],
    ),
    "/tokenize": (
        tei_tokenize.decode_tokenize,
        [{}, *INPUTS, *({"inputs": "a", "add_special_tokens": each} for each in (False, None, 5)), {"content": "a"}],
    ),
    "/decode": (
        tei_tokenize.decode_ids,
        [{}, *({"ids": each} for each in [*TEXTS, *IDS]), *({"ids": [1], "skip_special_tokens": each} for each in (False, None))],
    ),
    "/predict": (
        tei_predict.decode_predict,
        [{}, *INPUTS, *({"inputs": "a", **option} for option in [*TRUNCATIONS, {"raw_scores": True}, {"raw_scores": None}])],
    ),
}  # fmt: skip


@pytest.mark.parametrize("path", BODIES)
def test_a_body_is_parsed_where_the_schema_allows_it_and_nowhere_else(path):
    decode, bodies = BODIES[path]
    schema = TEI_OPERATIONS["POST", path].body["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator({**schema, "components": {"schemas": SCHEMAS}})
    wrong = [body for body in bodies if validator.is_valid(body) != is_parsed(decode, body)]
    assert not wrong


def is_parsed(decode, body):
    try:
        decode(json.dumps(body).encode(), default_model="m")
    except ClientError:
        return False
    return True
