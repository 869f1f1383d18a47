"""What Ray costs, and what it saves: `python -m benchmarks.cluster`, on a real Ray cluster of this machine alone.

`bars` compares one replica with the engine in this process: the same model, threads, callers and texts, in turns. `losses` puts a
gateway in front of two nodes and takes one away in the middle of a load, three times over, and looks at every vector. `plan` sends
two nodes of one core single texts at random moments, and shows what `gateway cluster plan` predicts beside.
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import corpus, sizing
from benchmarks.corpus import INPUTS, MODEL
from benchmarks.machine import machine
from benchmarks.throughput import requests_per_second
from gateway.capacity import plan
from gateway.cluster.embedder import RayEmbedder
from gateway.cluster.settings import RaySettings, Resources
from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Embedder, Inputs
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.settings import LocalSettings
from gateway.metrics import Metrics
from gateway.testing import ray_cluster
from gateway.testing.ray_cluster import Client, RayTestCluster, client_of, gateway_process, ran, under_load, until, written

CALLERS = 4
SINGLES = 200
FAR_SECONDS = 3600.0
LOSSES, CLIENTS, REQUESTS = 3, 16, 3500
NODES = 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--only", choices=["bars", "losses", "plan"], action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    chosen = options.only or ["bars", "losses", "plan"]
    sentences = corpus.corpus()
    folder = Path(tempfile.gettempdir()) / "gateway-bench-cluster"  # kept: the compiled model is in it
    folder.mkdir(exist_ok=True)
    print(json.dumps(machine()))
    with asyncio.Runner() as runner, started_cluster() as ray_cluster:
        if "bars" in chosen:
            runner.run(bars(ray_cluster, folder, sentences, options.rounds, options.seconds))
        if "plan" in chosen:
            runner.run(planned(ray_cluster, folder, sentences, options.seconds))
        if "losses" in chosen and not runner.run(losses(ray_cluster, folder, sentences.short)):
            sys.exit(1)


@contextmanager
def started_cluster() -> Iterator[RayTestCluster]:
    ray_cluster = RayTestCluster()
    try:
        yield ray_cluster
    finally:
        ray_cluster.stop()


async def bars(ray_cluster: RayTestCluster, folder: Path, sentences: corpus.Corpus, rounds: int, seconds: float) -> None:
    """Throughput of 64 texts a request and latency of one short text, through Ray and not, in turns."""
    cores = len(os.sched_getaffinity(0))
    node = ray_cluster.add_node(num_cpus=cores)
    config = written(
        folder / "bars.toml",
        ray_cluster.address,
        source=MODEL,
        data=folder,
        resources=f"{{ num_cpus = {cores} }}",
        precision='"auto"',
    )
    print(await ran("cluster", "deploy", "--config", str(config)))
    settings = RaySettings(
        source=MODEL, download=False, runtime="openvino", address=ray_cluster.address, resources=Resources(num_cpus=cores)
    )
    sides: dict[str, Embedder] = {
        "engine": LocalEmbedder(LocalSettings(source=MODEL, download=False, runtime="openvino"), context(folder)),
        "ray": RayEmbedder(settings, context(folder)),
    }
    for side in sides.values():
        await side.start()
        await bulk(side, sentences.requests, 1)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in sides if number % 2 else reversed(sides):
            found[name].append((await bulk(sides[name], sentences.requests, seconds), await single(sides[name], sentences.short)))
    for side in sides.values():
        await side.close()
    ratios = [ray / engine for (ray, _), (engine, _) in zip(found["ray"], found["engine"], strict=True)]
    added = [1000 * (ray - engine) for (_, ray), (_, engine) in zip(found["ray"], found["engine"], strict=True)]
    for name, figures in found.items():
        print(name, "texts/s", [round(rate) for rate, _ in figures], "p50 ms", [round(1000 * each, 2) for _, each in figures])
    print(f"bulk through Ray / in process: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); bar >= 0.80")
    print(f"added to one short text, p50: {statistics.median(added):.2f} ms ({min(added):.2f} to {max(added):.2f}); bar <= 5")
    await ran("cluster", "delete", ray_cluster.MODEL, "--config", str(config))
    ray_cluster.kill_node(node)


async def planned(ray_cluster: RayTestCluster, folder: Path, sentences: corpus.Corpus, seconds: float) -> None:
    """Two replicas, each on a node of one core. The cores are those of everything else here, too."""
    nodes = [ray_cluster.add_node(), ray_cluster.add_node()]
    config = written(
        folder / "plan.toml", ray_cluster.address, source=MODEL, data=folder, replicas="{ min = 2, max = 2 }", precision='"auto"'
    )
    print(await ran("cluster", "deploy", "--config", str(config)))
    settings = RaySettings(source=MODEL, download=False, runtime="openvino", address=ray_cluster.address)
    side = RayEmbedder(settings, context(folder))
    await side.start()
    await bulk(side, sentences.requests, 2)
    fastest = await bulk(side, sentences.requests, seconds)
    texts = [text for request in sentences.requests for text in request]
    alone = await single(side, texts)
    tokens = [(await side.prepare(inputs_of(request, "a"))).token_counts for request in sentences.requests]
    cv = float(np.std(np.concatenate(tokens)) / np.mean(np.concatenate(tokens)))
    speed = fastest * sentences.mean_tokens / NODES
    replica = plan.ReplicaProfile(tokens_per_second=speed, streams=1, call_seconds=max(0.0, alone - NODES / fastest), cores=1)
    print(f"{fastest:.0f} texts/s, {speed:,.0f} tokens/s a replica, cv of tokens {cv:.2f}")
    print(f"{1000 * replica.call_seconds:.2f} ms a call")
    print("| of the fastest | texts a second | predicted p50, p99 | measured p50, p99 |\n|---|---|---|---|")
    for share in sizing.UTILIZATIONS:
        load = plan.Workload(texts_per_second=share * fastest, tokens=sentences.mean_tokens, tokens_cv=cv, peak_factor=1)
        took = await sizing.poisson(side, texts, rate=load.texts_per_second, seconds=sizing.SECONDS)
        print(f"| {share:.0%} | {sizing.compared(load, replica, NODES, took)} |", flush=True)
    await side.close()
    await ran("cluster", "delete", ray_cluster.MODEL, "--config", str(config))
    for node in nodes:
        ray_cluster.kill_node(node)


def context(folder: Path) -> BackendContext:
    return BackendContext(ray_cluster.MODEL, LimitSettings(), EngineSettings(), Metrics().of_model(ray_cluster.MODEL), folder)


async def bulk(side: Embedder, requests: list[list[str]], seconds: float) -> float:
    """Texts a second of CALLERS that each ask for 64 at a time."""
    began, finished_at, texts = time.monotonic(), [], itertools.cycle(requests)

    async def caller(name: str) -> None:
        while time.monotonic() < began + seconds:
            await embedded(side, next(texts), name)
            finished_at.append(time.monotonic())

    await asyncio.gather(*(caller(str(number)) for number in range(CALLERS)))
    return INPUTS * requests_per_second(began, finished_at, CALLERS)


async def single(side: Embedder, texts: list[str]) -> float:
    """The median seconds of one short text after another."""
    taken = []
    for text in texts[:SINGLES]:
        began = time.perf_counter()
        await embedded(side, [text], "a")
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def embedded(side: Embedder, texts: list[str], caller: str):
    return (await side.embed(await side.prepare(inputs_of(texts, caller)))).rows


def inputs_of(texts: list[str], caller: str) -> Inputs:
    return Inputs(texts, is_array=True, caller=caller, deadline=time.monotonic() + FAR_SECONDS)


async def losses(ray_cluster: RayTestCluster, folder: Path, short: list[str]) -> bool:
    """Whether every request was answered with 200 and the engine's own vectors, float32, whatever was lost meanwhile."""
    local = LocalEmbedder(LocalSettings(source=MODEL, download=False, runtime="openvino", precision="float32"), context(folder))
    await local.start()
    truth = dict(zip(short[:64], await embedded(local, short[:64], "a"), strict=True))
    await local.close()
    ray_cluster.TEXTS = short[:64]
    nodes = [ray_cluster.add_node(), ray_cluster.add_node()]
    config = written(folder / "losses.toml", ray_cluster.address, source=MODEL, data=folder, replicas="{ min = 2, max = 2 }")
    print(await ran("cluster", "deploy", "--config", str(config)))
    port = config.read_text().split("port = ")[1].split()[0]
    with gateway_process(config, folder / "gateway.log"):
        async with client_of(f"http://127.0.0.1:{port}") as app:
            client = Client(app, truth)
            await until(client.is_alive)
            for number in range(LOSSES):
                await until(lambda: runs(client, 2), seconds=120)
                began, before = time.monotonic(), client.num_asked
                async with under_load(client, clients=CLIENTS, num_texts=1):
                    await until(lambda: client.num_asked > before + REQUESTS // 2, seconds=300)  # noqa: B023 - awaited here
                    ray_cluster.kill_node(nodes.pop(0))
                    await until(lambda: client.num_asked > before + REQUESTS, seconds=300)  # noqa: B023 - as above
                seconds = time.monotonic() - began
                print(
                    f"loss {number + 1}: {client.num_asked - before} requests in {seconds:.1f} s, statuses so far {client.statuses}"
                )
                nodes.append(ray_cluster.add_node())
            lost = await client.counted('gateway_cluster_calls_total{model="small",outcome="lost"}')
    print(
        f"{client.num_asked} requests, statuses {client.statuses}, wrong {client.num_wrong}, calls lost and asked again {lost:.0f}"
    )
    return client.statuses == {200: client.num_asked} and not client.num_wrong


async def runs(client: Client, num_replicas: int) -> bool:
    return await client.is_ready() and await client.running() == num_replicas


if __name__ == "__main__":
    main()
