"""Loads torch encoders whose vectors are faithful: measured when they are loaded, on each device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.engine.adapter_merge import merged
from gateway.engine.fidelity import PROBE_SECONDS, Proof, Unfaithful, expected_of, judge, proof_of
from gateway.engine.kind import kind_of
from gateway.engine.precision import CANDIDATES, half_precision
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_encoder import TorchEncoder, release
from gateway.engine.torch_network import TorchNetwork
from gateway.engine.torch_reranker import TorchReranker
from gateway.engine.torch_sparse_encoder import TorchSparseEncoder
from gateway.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Faithful:
    """One encoder a device, all in one precision. `fallback` says which precisions were given up before it and why, or is ""."""

    encoders: list[TorchNetwork]
    fidelity: float
    proof: Proof
    max_probe_tokens: int
    fallback: str


def load_encoder(folder: Path, *, device: str, precision: str, threads: int, trusts_code: bool = False) -> TorchNetwork:
    """Loads a model of any kind on one device. With `trusts_code` its own code runs, which only the compiling child may ask for.

    Raises OperatorError if it cannot be loaded.
    """
    encoders = {"reranker": TorchReranker, "sparse_encoder": TorchSparseEncoder}
    with merged(folder) as whole:
        encoder = encoders.get(kind_of(folder, trusts_code=trusts_code), TorchEncoder)
        return encoder(whole, device=device, precision=precision, threads=threads, trusts_code=trusts_code)


def load_faithful(
    folder: Path, *, devices: Sequence[str], precision: str, threads: int, seconds: float = PROBE_SECONDS
) -> Faithful:
    """Loads one encoder a device, in the first candidate precision that reaches the minimum cosine on every device.

    Raises Unfaithful if none does, float32 included: a text's vector then depends on the rest of its batch, or is no vector.
    Raises OperatorError if the model cannot be loaded in float32.
    """
    if precision == "auto":
        precision = half_precision(folder) if devices[0] != "cpu" else "float32"
    loaded = _load_reference(folder, devices[0], threads=threads)
    tokenizer = Tokenizer(loaded.info.tokenizer_json)
    expected, proof = expected_of(loaded, tokenizer, seconds=seconds), proof_of(loaded, tokenizer)
    reference = loaded if precision == "float32" else None
    del loaded  # the device may have no memory for two copies
    given_up: list[str] = []
    for candidate in CANDIDATES[precision]:
        release()
        try:
            encoders = [
                reference if reference and reference.info.device == device
                else load_encoder(folder, device=device, precision=candidate, threads=threads)
                for device in devices
            ]  # fmt: skip
        except OperatorError as error:  # weights beyond float16's range, or no memory; in float32 it could be loaded
            given_up.append(f"torch in {candidate} cannot load it ({error})")
            continue
        fidelity, reason = judge(encoders, expected)
        if not reason:
            return Faithful(encoders, fidelity, proof, expected.max_tokens, "; ".join(given_up))
        given_up.append(reason)
        encoders.clear()
    raise Unfaithful(folder, given_up)


def _load_reference(folder: Path, device: str, *, threads: int) -> TorchNetwork:
    """Loads the model in float32 on that device; on the CPU if the device has too little memory."""
    try:
        return load_encoder(folder, device=device, precision="float32", threads=threads)
    except OperatorError:
        if device == "cpu":
            raise
    release()
    return load_encoder(folder, device="cpu", precision="float32", threads=threads)
