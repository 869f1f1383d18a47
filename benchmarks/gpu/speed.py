"""A short benchmark: texts a second through the whole engine beside `encode` on the same device, and one text alone."""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers import SentenceTransformer

from benchmarks.gpu.checks import Seen, embedded, local_of
from benchmarks.gpu.plan import STORY, Plan
from gateway.engine.torch_encoder import release
from gateway.engine.torch_network import DTYPES
from gateway.testing import architectures
from gateway.testing.architectures import model_of

# Random weights at the size of published models: speed does not depend on what the weights are.
LARGE: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    "qwen3": {
        "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 3072,
        "num_key_value_heads": 8, "head_dim": 128,
    },
}  # fmt: skip
WORDS = STORY.split()


def texts_of(num_words: tuple[int, ...], count: int) -> list[str]:
    """No two alike, so that nothing is gained by knowing one."""
    lengths = [num_words[number % len(num_words)] for number in range(count)]
    return [f"{number} " + " ".join(WORDS[(number + place) % len(WORDS)] for place in range(n)) for number, n in enumerate(lengths)]


def workloads(plan: Plan) -> dict[str, list[str]]:
    scale = 1 if plan.is_small else 64 if plan.is_cuda else 4
    return {
        "short": texts_of((8, 12, 16), 32 * scale),
        "mixed": texts_of((6, 12, 40, 150), 16 * scale),
        "chunks": texts_of((150,), 8 * scale),
    }


async def through_the_engine(plan: Plan, folder: Path) -> Seen:
    local = local_of(plan, folder)
    await local.start()
    about = local.describe()
    seen: Seen = {"precision": about.precision, "fidelity": about.fidelity, "fallback": about.fallback}
    await embedded(local, texts_of((12,), 64))
    for name, texts in workloads(plan).items():
        halves = [texts[::2], texts[1::2]]
        started = time.perf_counter()
        await asyncio.gather(*(embedded(local, half) for half in halves))
        seen[f"{name}_per_second"] = round(len(texts) / (time.perf_counter() - started), 1)
    alone = []
    for text in texts_of((12,), 20 if plan.is_small else 200):
        started = time.perf_counter()
        await embedded(local, [text])
        alone.append(1000 * (time.perf_counter() - started))
    seen["alone_p50_ms"], seen["alone_p95_ms"] = (
        round(statistics.median(alone), 2),
        round(sorted(alone)[-len(alone) // 20 or -1], 2),
    )
    await local.close()
    return seen


def through_encode(plan: Plan, folder: Path, precision: str) -> Seen:
    kwargs = {"dtype": DTYPES[precision]}
    model = SentenceTransformer(str(folder), device=plan.first_device, local_files_only=True, model_kwargs=kwargs)
    model.encode(texts_of((12,), 64))
    seen = {}
    for name, texts in workloads(plan).items():
        started = time.perf_counter()
        model.encode(texts, batch_size=32 if not plan.is_cuda else 128)
        seen[f"{name}_per_second"] = round(len(texts) / (time.perf_counter() - started), 1)
    return seen


def speed_of(plan: Plan, folder: Path) -> Seen:
    gateway = asyncio.run(through_the_engine(plan, folder))
    release()
    encode = through_encode(plan, folder, gateway["precision"])
    release()
    ratios = {name: round(gateway[name] / encode[name], 2) for name in encode}
    return {"gateway": gateway, "encode": encode, "gateway_over_encode": ratios}


def minilm_speed(plan: Plan) -> Seen:
    return speed_of(plan, plan.minilm)


async def with_and_without(plan: Plan) -> Seen:
    local = local_of(plan, plan.minilm)
    await local.start()
    encoder, batcher = local.devices[0].encoder, local.batcher
    texts = workloads(plan)["mixed"]
    seen: Seen = {}

    async def alone() -> float:
        taken = []
        for text in texts_of((12,), 20 if plan.is_small else 200):
            started = time.perf_counter()
            await embedded(local, [text])
            taken.append(1000 * (time.perf_counter() - started))
        return round(statistics.median(taken), 3)

    async def bulk() -> float:
        started = time.perf_counter()
        await asyncio.gather(*(embedded(local, texts[start::8]) for start in range(8)))
        return round(len(texts) / (time.perf_counter() - started), 1)

    seen["alone_p50_ms_with_graphs"] = await alone()
    seen["bulk_per_second_running_ahead"] = await bulk()
    batcher.next_batch_ahead = list  # type: ignore[method-assign]  # nothing is formed while a batch runs
    seen["bulk_per_second_one_after_another"] = await bulk()
    encoder.graphs = None  # type: ignore[attr-defined]
    seen["alone_p50_ms_without_graphs"] = await alone()
    encoder.is_unpadded = False  # type: ignore[attr-defined]
    seen["bulk_per_second_padded_too"] = await bulk()
    await local.close()
    return seen


def overlap_speed(plan: Plan) -> Seen:
    """Graphs, batches formed ahead and batches without padding, each with and without, on the first device."""
    seen = asyncio.run(with_and_without(plan))
    release()
    return seen


def large_speed(plan: Plan) -> Seen:
    """335 and 440 million parameters; in a small run a few thousand."""
    seen = {}
    for kind, size in LARGE.items():
        config, network, settings = architectures.KINDS[kind]
        name = f"large-{kind}"
        architectures.KINDS[name] = (config, network, settings if plan.is_small else settings | size)
        hidden = settings["hidden_size"] if plan.is_small else size["hidden_size"]
        folder = model_of(name, plan.scratch / name, hidden=hidden, scale=4 if plan.is_small else 1, dtype=torch.bfloat16)
        seen[kind] = speed_of(plan, folder)
    return seen


def quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


BENCHMARKS = (minilm_speed, overlap_speed, large_speed)
