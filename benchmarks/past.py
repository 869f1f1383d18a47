"""What a key's past costs it: one short text after another beside the bulk of a new key.

The past is real: the key's texts are embedded until the gateway has counted so many tokens of it. So a whole one takes minutes.
"""

import hashlib
import itertools
import time
from pathlib import Path

from benchmarks import load, queries
from benchmarks.program import FRESH_KEYS
from benchmarks.server import Server

PAST_BAR_TOKENS = 10_000_000
CLIENTS, INPUTS, INPUT_TOKENS = 8, 64, 252
NUM_BODIES = 8
TEXTS_A_SECOND = 5
SETTLE_SECONDS = 2.0

unused_keys = itertools.cycle(FRESH_KEYS)


def bulk_requests() -> list[list[str]]:
    """Each text has 250 words of one token, and two special ones; no two are alike."""
    return [[" ".join(f"{body * INPUTS + text:0250d}") for text in range(INPUTS)] for body in range(NUM_BODIES)]


def give_past(server: Server, key: str, num_tokens: int, requests: list[list[str]]) -> None:
    while (missing := num_tokens - tokens_of(server, key)) > 0:
        num_requests = int(missing // (INPUTS * INPUT_TOKENS)) + 1
        some = itertools.islice(itertools.cycle(requests), min(num_requests, 64))
        queries.embed_all(server, list(some), clients=CLIENTS, key=key)


def tokens_of(server: Server, key: str) -> float:
    public_id = f"env-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return server.counted(f'gateway_key_tokens_total{{key="{public_id}"')


def beside_bulk(server: Server, bodies: Path, texts: list[str], *, key: str, seconds: float) -> list[float]:
    """How long each of `key`'s texts took, in seconds, while 8 clients of a new key send 64 texts a request without pause."""
    process = load.started(server, bodies, clients=CLIENTS, seconds=seconds, key=next(unused_keys))
    time.sleep(SETTLE_SECONDS)
    taken = queries.latencies(server, texts, rate=TEXTS_A_SECOND, seconds=seconds, key=key)
    load.finished(process, clients=CLIENTS)
    return taken
