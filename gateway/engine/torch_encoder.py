"""The Encoder of an embedder through torch: sentence-transformers' own modules, fed with the gateway's batches of token ids."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer

from gateway.engine import flash_attention
from gateway.engine.checkpoint import read, refuse_other_vectors
from gateway.engine.cuda_graphs import Capture, CapturedShapes, capture_graph
from gateway.engine.encoder import NetworkInfo, OutOfMemory, Window
from gateway.engine.fidelity import FAILURES, MIN_COSINE, cosines, probe_windows
from gateway.engine.router import always_ends_in, refuse_unequal_routes, tasks_of
from gateway.engine.shape_buckets import FREE
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_network import DTYPES, TorchNetwork
from gateway.engine.torch_pipeline import Pipeline, RoutedPipeline, leaves_prompt_out
from gateway.errors import OperatorError
from gateway.log import get_logger

log = get_logger()


class TorchEncoder(TorchNetwork):
    """A model on one torch device. Raises OperatorError if it cannot be loaded, or a module does not take token ids and masks."""

    def __init__(self, folder: Path, *, device: str, precision: str, threads: int, trusts_code: bool = False) -> None:
        super().__init__(folder, device=device, precision=precision, threads=threads)
        model = read(folder, self.device, DTYPES[self.precision], trusts_code=trusts_code)
        _refuse_what_cannot_be_fed(model, folder)
        self.model = model.eval()
        self.pipeline = Pipeline(self.model)
        pad_id = int(model.tokenizer.pad_token_id or 0)
        self.is_unpadded = False
        self.graphs: CapturedShapes | None = None
        width, dimensions = self.widths(folder, pad_id)
        network = NetworkInfo(
            dimensions=dimensions,
            max_tokens=int(model.max_seq_length or model.tokenizer.model_max_length),
            pad_id=pad_id,
            prompts={name: text for name, text in model.prompts.items() if text},
            default_prompt=model.prompts.get(model.default_prompt_name or "") or "",
            is_normalized=always_ends_in(model[len(model) - 1], "Normalize") and dimensions == width,
            leaves_prompt_out=any(map(leaves_prompt_out, model)),
            pooling=next((mode for module in model if isinstance(mode := getattr(module, "pooling_mode", None), str)), ""),
            tasks=tasks_of(model),
        )
        self.info = self.info_of(network, model.tokenizer.backend_tokenizer.to_str())
        if self.precision == "float32":  # the reference for all others, and always loaded first
            refuse_other_vectors(folder, model, self.embed)
        if self.is_cuda and not self.info.network.tasks:
            self.capture_graphs(capture_graph)  # before the attention is another: a graph keeps the kernels it was captured with
        implementation = flash_attention.implementation_for(self.device) if flash_attention.is_possible(self.info) else None
        if implementation is not None:
            self.unpad(implementation)

    def widths(self, folder: Path, pad_id: int) -> tuple[int, int]:
        """The dimensions of the last module's vectors, before and after `truncate_dim`, seen in a run and not read from files."""
        ids = torch.tensor([[pad_id] * 3], device=self.device)
        try:
            with torch.inference_mode():
                whole = self.pipeline.whole(ids, torch.ones_like(ids))
        except FAILURES as error:
            reason = (str(error).splitlines() or [""])[0]
            raise OperatorError(f"the model in {folder} cannot be run: {type(error).__name__}: {reason}") from error
        if whole.ndim != 2:  # noqa: PLR2004 - a row a text
            raise OperatorError(f"the model in {folder} cannot be run: its modules give no vector of a text")
        return whole.shape[1], self.pipeline.truncate(whole).shape[1]

    def capture_graphs(self, capture: Capture) -> None:
        """Small batches run as graphs from now on, if each of them gives the vectors it gives without."""
        probes = probe_windows(self.info.network, Tokenizer(self.info.tokenizer_json))
        graphs = CapturedShapes(self.pipeline, self.tensors, pad_id=self.info.network.pad_id, capture=capture)
        graphs.capture_all(probes, max_tokens=self.info.network.max_tokens, device=self.info.device)
        self.graphs = graphs if graphs.shapes else None

    def unpad(self, implementation: str) -> None:
        """Switches to batches without padding if the model's vectors stay the same: not every architecture supports them."""
        transformer: Any = self.model[0]
        before = transformer.config._attn_implementation  # noqa: SLF001 - it has no public name
        probes = probe_windows(self.info.network, Tokenizer(self.info.tokenizer_json))
        expected = self.embed(probes)
        try:
            transformer.auto_model.set_attn_implementation(implementation)
            transformer.unpad_inputs = None  # sentence-transformers then checks again whether it can
            self.is_unpadded = transformer.can_flatten_inputs
            worst = float(cosines(self.embed(probes), expected).min())
        except (ImportError, AttributeError, TypeError, ValueError, RuntimeError, OutOfMemory) as error:
            worst, reason = -1.0, str(error)
        else:
            reason = f"the worst cosine to padded batches is {worst:.4f}"
        self.is_unpadded = self.is_unpadded and worst >= MIN_COSINE
        if self.is_unpadded:
            self.info = replace(self.info, shapes=FREE)
            log.info("batches_without_padding", device=self.info.device, attention=implementation)
        else:
            transformer.auto_model.set_attn_implementation(before)
            log.warning("batches_with_padding", device=self.info.device, attention=before, reason=reason)

    def traceable(self) -> torch.nn.Module:
        tasks = self.info.network.tasks
        return RoutedPipeline(self.pipeline, tasks) if tasks else super().traceable()

    def vectors(self, windows: list[Window]) -> torch.Tensor:
        vectors: torch.Tensor
        captured = self.graphs.run(windows) if self.graphs else None
        if captured is not None:
            vectors = captured
        elif self.is_unpadded:
            features = flash_attention.end_to_end(self.model[0], windows)
            on_device = {
                name: self.transfer.to_device(value.numpy()) if torch.is_tensor(value) else value
                for name, value in features.items()
            }
            vectors = self.pipeline.truncate(self.model(on_device)["sentence_embedding"])
        else:
            vectors = self.embed_by_route(windows) if self.info.network.tasks else self.pipeline(*self.tensors(windows))
        return vectors

    def embed_by_route(self, windows: list[Window]) -> torch.Tensor:
        """Embeds each window by the route of its task."""
        rows: list[torch.Tensor] = [torch.empty(0)] * len(windows)
        for task in {window.task for window in windows}:
            chosen = [index for index, window in enumerate(windows) if window.task == task]
            *inputs, _ = self.tensors([windows[index] for index in chosen])
            vectors = self.pipeline(*inputs, task=task)
            for index, vector in zip(chosen, vectors, strict=True):
                rows[index] = vector
        return torch.stack(rows)


def _refuse_what_cannot_be_fed(model: SentenceTransformer, folder: Path) -> None:
    if not hasattr(model.tokenizer, "backend_tokenizer"):
        kind = type(model.tokenizer).__name__
        raise OperatorError(f"the model in {folder} has a tokenizer that cannot be run apart from it, a {kind}")
    if any(leaves_prompt_out(module) and "weightedmean" in getattr(module, "pooling_mode", "") for module in model):
        raise OperatorError(
            f"the model in {folder} weights tokens by their position and leaves its prompt out, which is not supported"
        )
    refuse_unequal_routes(model, folder)
    cut = model.truncate_dim
    if cut is not None and (isinstance(cut, bool) or not isinstance(cut, int) or cut < 1):
        raise OperatorError(f"the model in {folder} says truncate_dim {cut!r}, where a number of dimensions belongs")


def release() -> None:
    """Frees the memory of models that are no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_devices(name: str) -> list[str]:
    """The devices that a setting names, each with its number; "auto" and "cuda" mean all CUDA devices, or "auto" the CPU.

    Raises OperatorError if torch does not see one of them.
    """
    num_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not num_cuda):
        return ["cpu"]
    names = [f"cuda:{number}" for number in range(num_cuda)]
    asked = names if name in {"auto", "cuda"} else list(dict.fromkeys(name.split(",")))
    missing = [each for each in asked if each not in names]
    if missing or not asked:
        raise OperatorError(f"the device '{', '.join(missing) or name}' is not on this machine: torch sees {num_cuda} CUDA devices")
    return asked
