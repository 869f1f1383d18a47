"""One replica under a Poisson stream of single texts, beside what `gateway cluster plan` predicts: `python -m benchmarks.sizing`.

In process, so that the engine alone is measured: texts are of the corpus, their times until their vector is there.
"""

import asyncio
import itertools
import random
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.bare_engine import BareEngine
from benchmarks.corpus import Corpus, corpus
from gateway.capacity.plan import ReplicaProfile, Workload, percentile
from gateway.embedding.embedder import Embedder, Inputs

UTILIZATIONS = (0.2, 0.4, 0.6, 0.8)
SECONDS = 15.0
STREAMS = 2


async def seconds_of(side: Embedder, text: str) -> float:
    began = time.perf_counter()
    inputs = Inputs(texts=[text], is_array=False, caller="bench", deadline=time.monotonic() + 3600)
    await side.embed(await side.prepare(inputs))
    return time.perf_counter() - began


async def poisson(side: Embedder, texts: list[str], *, rate: float, seconds: float) -> list[float]:
    """How long each text took. Texts come whether or not the ones before are done."""
    chance = random.Random(1)  # noqa: S311 - nothing is kept secret by it
    tasks = []
    ends = due = time.monotonic()
    ends += seconds
    for text in itertools.cycle(texts):
        due += chance.expovariate(rate)
        if due >= ends:
            break
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        tasks.append(asyncio.create_task(seconds_of(side, text)))
    return await asyncio.gather(*tasks)


def replica_of(engine: BareEngine, sentences: Corpus, texts: list[str]) -> tuple[ReplicaProfile, float]:
    """As measured here: its speed with full batches, and what one text costs beyond its share of that. Texts a second besides."""
    texts_per_second = engine.bulk(8.0)["texts_per_second"]
    alone = [engine.runner.run(seconds_of(engine.local, text)) for text in texts[:300]]
    each = STREAMS / texts_per_second
    call_seconds = max(0.0, float(np.median(alone)) - each)
    speed = texts_per_second * sentences.mean_tokens
    return ReplicaProfile(tokens_per_second=speed, streams=STREAMS, call_seconds=call_seconds), texts_per_second


def main(folder: Path) -> None:
    sentences = corpus()
    texts = [text for request in sentences.requests for text in request]
    engine = BareEngine(sentences, folder)
    engine.bulk(2.0)
    replica, fastest = replica_of(engine, sentences, texts)
    tokens = [prepared_tokens(engine, request) for request in sentences.requests]
    cv = float(np.std(np.concatenate(tokens)) / np.mean(np.concatenate(tokens)))
    print(f"{replica.tokens_per_second:,.0f} tokens/s, {fastest:.0f} texts/s, cv of tokens {cv:.2f}")
    print(f"{1000 * replica.call_seconds:.2f} ms a call")
    print("| of the fastest | texts a second | predicted p50, p99 | measured p50, p99 |\n|---|---|---|---|")
    for utilization in UTILIZATIONS:
        load = Workload(texts_per_second=utilization * fastest, tokens=sentences.mean_tokens, tokens_cv=cv, peak_factor=1)
        took = engine.runner.run(poisson(engine.local, texts, rate=load.texts_per_second, seconds=SECONDS))
        print(f"| {utilization:.0%} | {compared(load, replica, 1, took)} |", flush=True)


def compared(load: Workload, replica: ReplicaProfile, num_replicas: int, took: list[float]) -> str:
    """The cells of a row: texts a second, predicted and measured p50 and p99."""
    predicted = [1000 * percentile(share, load, replica, num_replicas) for share in (0.5, 0.99)]
    measured = [1000 * float(np.percentile(took, percent)) for percent in (50, 99)]
    shown = [f"{first:.1f} ms, {second:.1f} ms" for first, second in (predicted, measured)]
    return f"{load.texts_per_second:.0f} | {shown[0]} | {shown[1]}"


def prepared_tokens(engine: BareEngine, request: list[str]) -> list[int]:
    inputs = Inputs(texts=request, is_array=True, caller="bench", deadline=time.monotonic() + 3600)
    return engine.runner.run(engine.local.prepare(inputs)).token_counts


if __name__ == "__main__":
    main(Path(sys.argv[1]))
