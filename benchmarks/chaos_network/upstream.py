"""An upstream whose vectors tell whose they are: `python -m benchmarks.chaos_network.upstream ADDRESS PORT`.

It speaks OpenAI's protocol, as `benchmarks.standin`, with a vector of each text's own that anybody can compute.
"""

import base64
import hashlib
import sys

import numpy as np
import orjson
import uvloop

from benchmarks import standin
from benchmarks.soak.form import Vectors

DIMENSIONS = 64


def vector_of(text: str) -> Vectors:
    """Of length 1, shape (64,): random by the text's digest, so that two texts' are nearly at right angles."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])
    vector = np.random.default_rng(seed).standard_normal(DIMENSIONS, dtype=np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


class Connection(standin.Connection):
    def answer(self, body: bytes) -> bytes:
        given = orjson.loads(body)["input"]
        texts = [given] if isinstance(given, str) else given
        rows = [base64.b64encode(vector_of(text).tobytes()).decode() for text in texts]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        return standin.as_reply(orjson.dumps({"object": "list", "data": data, "model": "stand-in", "usage": usage}))


if __name__ == "__main__":
    uvloop.run(standin.serve(int(sys.argv[2]), sys.argv[1], Connection))
