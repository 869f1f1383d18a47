"""Each check says what it saw, and raises where that is not right. The same code runs on a CPU."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.plan import Plan, Skipped, encoded, held_out
from gateway.config import EngineSettings, LimitSettings
from gateway.embedding.backend import BackendContext
from gateway.embedding.embedder import Inputs
from gateway.engine import flash_attention
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.encoder import Window
from gateway.engine.fidelity import cosines, min_cosine
from gateway.engine.settings import LocalSettings
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_encoder import TorchEncoder, choose_devices, release
from gateway.engine.torch_loader import Faithful, load_faithful
from gateway.metrics import Metrics
from gateway.testing.architectures import KINDS, model_of

Seen = dict[str, Any]
LONG = "a " * 250
PRECISIONS = ("auto", "float16", "bfloat16", "float32")
RESERVED_BYTES = 2**29  # beyond the model, on a device that is made to seem small
DEPENDS_ON_COMPANY = "fnet"


class NotSo(Exception):
    """What was seen is not what must be."""


def expect(is_so: bool, what: str) -> None:
    if not is_so:
        raise NotSo(what)


def local_of(plan: Plan, source: Path, **settings: Any) -> LocalEmbedder:
    engine = EngineSettings(warmup_seconds=0 if plan.is_small else 5)
    context = BackendContext("m", LimitSettings(), engine, Metrics().of_model("m"), plan.scratch / "data")
    row = {"runtime": "torch", "device": plan.device, "download": False} | settings
    return LocalEmbedder(LocalSettings(source=str(source), **row), context)


async def embedded(local: LocalEmbedder, texts: list[str], **more: Any) -> Any:
    inputs = Inputs(texts, is_array=True, caller="a", deadline=time.monotonic() + 600, **more)
    return (await local.embed(await local.prepare(inputs))).rows


def worst(folder: Path, faithful: Faithful) -> float:
    """On texts that are no probes: alone, all together, and between the shortest and the longest."""
    least = 1.0
    for encoder in faithful.encoders:
        windows = held_out(Tokenizer(encoder.info.tokenizer_json), encoder.info.network.max_tokens)
        expected = encoded(folder, windows)
        alone = np.concatenate([encoder.embed([window]) for window in windows])
        among = np.stack([encoder.embed([windows[0], window, windows[-1]])[1] for window in windows])
        least = min(least, *(float(cosines(rows, expected).min()) for rows in (alone, encoder.embed(windows), among)))
    return least


def measured(folder: Path, plan: Plan, precision: str) -> Seen:
    faithful = load_faithful(folder, devices=choose_devices(plan.device), precision=precision, threads=0)
    used = faithful.encoders[0].info.precision
    seen = worst(folder, faithful)
    expect(seen >= min_cosine(used), f"asked for {precision}, runs in {used}: worst cosine {seen:.6f} on texts held out")
    return {"used": used, "fidelity": round(faithful.fidelity, 7), "held_out": round(seen, 7), "fallback": faithful.fallback}


def minilm_in_every_precision(plan: Plan) -> Seen:
    """Its vectors are encode's own, alone and padded. A CPU takes minutes for half precisions: there a small model stands in."""
    if plan.is_cuda:
        return {precision: measured(plan.minilm, plan, precision) for precision in PRECISIONS}
    small = model_of("bert", plan.scratch / "precisions")
    return {"auto": measured(plan.minilm, plan, "auto")} | {f"{each}, small": measured(small, plan, each) for each in PRECISIONS}


def every_architecture(plan: Plan) -> Seen:
    """Small models with random weights: masks, windows, rotary positions. What depends on its company is refused."""
    kinds = [kind for kind in KINDS if kind != DEPENDS_ON_COMPANY]
    kinds = ["bert", "modernbert", "t5", "gemma3"] if plan.is_small else kinds
    seen = {}
    for kind in kinds:
        folder = model_of(kind, plan.scratch / kind)
        seen[kind] = measured(folder, plan, "auto" if plan.is_cuda else "bfloat16")
    return seen


def overflowing(network: torch.nn.Module) -> None:
    network.get_submodule("encoder.layer.2.output.dense").weight.mul_(2e5)


def overflow_in_float16_falls_back(plan: Plan) -> Seen:
    """As Gemma 3, T5 and Qwen3 do with their published weights."""
    seen = measured(model_of("bert", plan.scratch / "overflow", spoil=overflowing), plan, "float16")
    expect(seen["used"] == "bfloat16", f"it runs in {seen['used']}")
    return seen


def what_stays_float32(plan: Plan) -> Seen:
    """Rotary frequencies, and T5's last matrices, under float16."""
    seen = {}
    for kind, name in {"modernbert": "inv_freq", "t5": ".wo."}.items():
        encoder = TorchEncoder(
            model_of(kind, plan.scratch / f"kept-{kind}"), device=plan.first_device, precision="float16", threads=0
        )
        network = encoder.model[0].auto_model
        tensors = [tensor for key, tensor in [*network.named_buffers(), *network.named_parameters()] if name in key]
        seen[kind] = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})
        expect(seen[kind] == ["float32"], f"{name} of {kind} is in {seen[kind]}")
    return seen


def every_device_serves(plan: Plan) -> Seen:
    """The whole road, from texts to vectors, with a copy of the model on each device."""
    devices = choose_devices(plan.device)
    texts = ["a few words of text " * (1 + number % 7) + str(number) for number in range(60)]

    async def served() -> Seen:
        local = local_of(plan, plan.minilm)
        started = time.monotonic()
        await local.start()
        seconds = time.monotonic() - started
        about = local.describe()
        rows = await embedded(local, texts)
        windows = [Window(local.tokenizer.with_special(local.tokenizer.fast.encode(text).ids[1:-1])) for text in texts[:7]]
        least = float(cosines(rows[:7], encoded(plan.minilm, windows)).min())
        await local.close()
        expect(about.device == ",".join(devices), f"it is on {about.device}, of {devices}")
        expect(least >= min_cosine(about.precision), f"worst cosine {least:.6f}")
        expect(about.fidelity is not None, "nobody measured it")
        told = {"device": about.device, "precision": about.precision, "fidelity": about.fidelity, "fallback": about.fallback}
        return {**told, "start_seconds": round(seconds, 1)}

    return asyncio.run(served())


def a_full_device_fails_nobody(plan: Plan) -> Seen:
    """It really is full: this process may take half a gigabyte more, and asks for more than that."""
    if not plan.is_cuda:
        raise Skipped("a CPU's memory is not limited so")
    local = local_of(plan, plan.minilm, precision="float32", device="cuda:0")

    async def crowded() -> Seen:
        await local.start()
        local.batcher.max_queue_tokens = 4_000_000
        local.batcher.budget.max_tokens = local.batcher.budget.first_tokens = 1_000_000
        release()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(0) + RESERVED_BYTES) / total, 0)
        try:
            rows = np.concatenate([await embedded(local, [LONG] * 1000) for _ in range(2)])
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, 0)
        alone = await embedded(local, [LONG])
        await local.close()
        budget = local.batcher.budget.max_tokens
        expect(budget < 1_000_000, "it never was full")
        expect(float(cosines(rows, np.repeat(alone, len(rows), axis=0)).min()) >= min_cosine("float32"), "vectors differ")
        return {"texts": len(rows), "max_batch_tokens": budget}

    return asyncio.run(crowded())


def no_device_of_that_name(_: Plan) -> Seen:
    """One clear line instead of torch's."""
    try:
        choose_devices("cuda:77")
    except Exception as error:  # noqa: BLE001 - whichever it is, its text is judged
        expect("torch sees" in str(error), str(error))
        return {"said": str(error)}
    raise NotSo("nothing was said")


def batches_without_padding(plan: Plan) -> Seen:
    """torch's own variable-length attention, or FlashAttention where it is installed."""
    implementation = flash_attention.implementation_for(torch.device("cuda:0")) if plan.is_cuda else None
    if implementation is None:
        raise Skipped("there is no attention for them here")
    encoder = TorchEncoder(plan.minilm, device="cuda:0", precision="float16", threads=0)
    expect(encoder.is_unpadded, f"{implementation} is installed and not used")
    return {"attention": implementation}


def small_batches_as_graphs(plan: Plan) -> Seen:
    """Each was checked against the same batch without a graph when it was captured; here, texts of other lengths."""
    if not plan.is_cuda:
        raise Skipped("a CPU has no graphs")
    encoder = TorchEncoder(plan.minilm, device="cuda:0", precision="float16", threads=0)
    expect(encoder.graphs is not None, "none was captured: the log says why")
    graphs, windows = encoder.graphs, [Window([101] + [2000 + number] * number + [102]) for number in (1, 7, 30, 60)]
    rows, encoder.graphs = encoder.embed(windows), None
    least = float(cosines(rows, encoder.embed(windows)).min())
    expect(least >= min_cosine("float16"), f"worst cosine {least:.6f} to batches without a graph")
    return {"shapes": len(graphs.shapes) if graphs else 0, "worst_cosine": round(least, 7)}


CHECKS: tuple[Callable[[Plan], Seen], ...] = (
    no_device_of_that_name, minilm_in_every_precision, every_device_serves, what_stays_float32, overflow_in_float16_falls_back,
    every_architecture, batches_without_padding, small_batches_as_graphs, a_full_device_fails_nobody,
)  # fmt: skip
