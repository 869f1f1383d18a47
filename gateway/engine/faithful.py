"""Encoders through torch whose vectors are faithful: measured when they are loaded, on each device."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.engine.fidelity import PROBE_SECONDS, Proof, Unfaithful, expected_of, judge, proof_of
from gateway.engine.precision import CANDIDATES, half_precision
from gateway.engine.tokenizer import Tokenizer
from gateway.engine.torch_encoder import TorchEncoder, release
from gateway.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Faithful:
    """One encoder a device, all in one precision. `fallback` says what was given up for it and why, else nothing."""

    encoders: list[TorchEncoder]
    fidelity: float
    proof: Proof
    max_probe_tokens: int
    fallback: str


def load_faithful(
    folder: Path, *, devices: Sequence[str], precision: str, threads: int, seconds: float = PROBE_SECONDS
) -> Faithful:
    """In the first precision, of the one asked for and those after it, that reaches the bar on every device.

    Raises OperatorError where none does, float32 included: the vector of a text then depends on its company, or is no vector.
    """
    if precision == "auto":
        precision = half_precision(folder) if devices[0] != "cpu" else "float32"
    loaded = load_reference(folder, devices[0], threads=threads)
    tokenizer = Tokenizer(loaded.info.tokenizer_json)
    expected, proof = expected_of(loaded, tokenizer, seconds=seconds), proof_of(loaded, tokenizer)
    reference = loaded if precision == "float32" else None
    del loaded  # two copies may be more than the device holds
    given_up: list[str] = []
    for candidate in CANDIDATES[precision]:
        release()
        try:
            encoders = [
                reference if reference and reference.info.device == device
                else TorchEncoder(folder, device=device, precision=candidate, threads=threads)
                for device in devices
            ]  # fmt: skip
        except OperatorError as error:  # weights beyond float16's range, or no memory: float32 was loaded before it
            given_up.append(f"torch in {candidate} cannot load it ({error})")
            continue
        fidelity, reason = judge(encoders, expected)
        if not reason:
            return Faithful(encoders, fidelity, proof, expected.max_tokens, "; ".join(given_up))
        given_up.append(reason)
        encoders.clear()
    raise Unfaithful(folder, given_up)


def load_reference(folder: Path, device: str, *, threads: int) -> TorchEncoder:
    """In float32 on that device, or where it has no room for that, on the CPU."""
    try:
        return TorchEncoder(folder, device=device, precision="float32", threads=threads)
    except OperatorError:
        if device == "cpu":
            raise
    release()
    return TorchEncoder(folder, device="cpu", precision="float32", threads=threads)
