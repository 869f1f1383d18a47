"""The headers of a successful reply at any door."""

from gateway.api.door import Computed, InferenceRequest
from gateway.embedding.catalog import Model
from gateway.embedding.embedder import Prepared, StageSeconds
from gateway.embedding.prompt import prompt_header


def headers_of(done: Computed[InferenceRequest], stages: StageSeconds) -> dict[str, str]:
    asked, model, prepared, vectors = done.asked, done.model, done.prepared, done.vectors
    return {
        **model_header(asked.model, model),
        "server-timing": ", ".join([f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in stages.items()]),
        "x-gateway-fingerprint": model.fingerprint_of(vectors),
        **({} if vectors.member is None else {"x-gateway-member": vectors.member}),
        **_long_inputs_header(prepared),
        **({} if vectors.num_hits is None else {"x-gateway-cache": f"hits={vectors.num_hits}"}),
        **({} if asked.asked_prompt is None else prompt_header(prepared.inputs.input_type, model.describe())),
        **({} if done.ranges is None else {"x-gateway-quantization": done.ranges.id}),
    }


def model_header(asked: str, model: Model) -> dict[str, str]:
    """`asked` is the model's name as the client sent it."""
    return {"openai-model": _ascii_only(asked if asked in model.row.names else model.name)}


def _long_inputs_header(prepared: Prepared[object]) -> dict[str, str]:
    num_long = sum(prepared.is_long)
    treatment = "chunked" if prepared.rule == "chunk" else "shortened"
    return {"x-gateway-long-inputs": f"{treatment}={num_long}"} if num_long else {}


def _ascii_only(name: str) -> str:
    """Returns a model's name with "?" for characters that are not ASCII, as a header needs it."""
    return name.encode("ascii", errors="replace").decode()
