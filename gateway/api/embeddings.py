"""Texts to vectors, for all doors; and POST /v1/embeddings, OpenAI's own."""

from collections.abc import Callable
from dataclasses import replace

from gateway.api.door import Computed, Door, Embedded, JSONReply, RequestContext
from gateway.api.inference import InferenceHandler
from gateway.embedding.catalog import Model
from gateway.embedding.embedder import Description, Inputs, ModelKind, Prepared
from gateway.embedding.prompt import resolve_input_type, resolve_instruction, resolve_own_name, resolve_purpose
from gateway.embedding.vectors import refuse_no_vector, truncate
from gateway.errors import MAX_QUOTED_CHARS, InvalidValue
from gateway.server.headers import Headers, value_of
from gateway.wire import request as wire_request
from gateway.wire import response as wire_response
from gateway.wire.request import EmbeddingsRequest
from gateway.wire.token_ids import other_encoding

PATH = "/v1/embeddings"
OPENAI_SDK = b"openai/"  # OpenAI/Python 1.2.3, AsyncAzureOpenAI/JS 4.5.6, OpenAI/2.1.0 (.NET)


def door(handler: InferenceHandler) -> Door[EmbeddingsRequest]:
    """OpenAI's door."""

    async def answer(asked: EmbeddingsRequest, context: RequestContext) -> JSONReply:
        _refuse_misread(asked, context.headers)
        return await handler.reply(await embed(handler, asked, context), context, _encode)

    return Door(PATH, "create_embeddings", wire_request.decode, answer)


async def embed(
    handler: InferenceHandler, asked: EmbeddingsRequest, context: RequestContext, *, kind: ModelKind = "embedder"
) -> Embedded:
    """Embeds the texts of a request that any door parsed, by a model of `kind`. Only an embedder's vectors are cut."""
    model = await handler.find_model(asked.model, kind, context, num_inputs=len(asked.texts))
    try:
        inputs = inputs_of(asked, context, model)
        _refuse_unsupported(asked, model)
        ranges = model.ranges_for(asked.output_dtypes, asked.dimensions, normalize=asked.normalize)
        prepared = await _prepare_by_rule(handler, model, inputs, context, is_default=asked.is_default_rule)
        vectors, token_counts = await handler.compute(model, prepared, context)
    except InvalidValue as error:
        raise error.named(asked.sent_as) from None
    dimensions = context.record.dimensions = asked.dimensions or model.dimensions
    if kind != "embedder":
        return Computed(asked, model, prepared, vectors, vectors.rows, token_counts)
    rows = truncate(vectors.rows, dimensions, normalize=asked.normalize, layer_norm=model.row.layer_norm_before_cut)
    if rows is not vectors.rows:
        refuse_no_vector(rows, inputs)  # the requested components may all be zero
    return Computed(asked, model, prepared, vectors, rows, token_counts, ranges)


async def _prepare_by_rule(
    handler: InferenceHandler, model: Model, inputs: Inputs, context: RequestContext, *, is_default: bool
) -> Prepared[object]:
    """As `prepare`. If the model cannot apply a rule for long texts that no client asked for, it applies its own."""
    try:
        return await handler.prepare(model, inputs, context)
    except InvalidValue as error:
        if not is_default or error.param != "long_input":
            raise
    return await handler.prepare(model, replace(inputs, long_input=None), context)


def inputs_of(asked: EmbeddingsRequest, context: RequestContext, model: Model) -> Inputs:
    """The request for an embedder, with the model's own name of its prompt. Raises InvalidValue if there is no such prompt."""
    inputs = Inputs(
        texts=asked.texts,
        is_array=asked.is_array,
        caller=context.caller.public_id,
        deadline=context.deadline,
        long_input=asked.long_input,
        normalize=asked.normalize,
        token_ids=asked.token_ids,
        field=asked.sent_as.get("input", "input"),
        service_class="background" if asked.is_background else "interactive",
    )
    if asked.input_type is None and asked.instruction is None:
        return inputs
    about = model.describe()
    name = _resolver_of(asked)(asked.input_type, about)
    return replace(inputs, input_type=resolve_instruction(asked.instruction, name, about), instruction=asked.instruction)


def _resolver_of(asked: EmbeddingsRequest) -> Callable[[str | None, Description], str | None]:
    if asked.is_prompt_exact:
        return resolve_own_name
    return resolve_purpose if asked.is_prompt_optional else resolve_input_type


def _refuse_unsupported(asked: EmbeddingsRequest, model: Model) -> None:
    """Checks the request against the model.

    Raises InvalidValue for too many dimensions, a `truncate_prompt_tokens` other than the model's length, and token ids in an
    encoding that the gateway cannot read, or that are the model's own where it takes texts alone.
    """
    if asked.token_ids is not None and not model.describe().takes_token_ids:
        raise InvalidValue(
            f"Invalid 'input': the model `{model.name}` is on another server, and takes texts, not ids of its own tokens.",
            param="input",
        )
    if asked.dimensions is not None and asked.dimensions > model.dimensions:
        raise _too_many_dimensions(asked.dimensions, model)
    refuse_other_length(asked.max_tokens, model, what="texts")
    if asked.has_ids and asked.model not in model.row.names and (encoding := other_encoding(asked.model)):
        raise InvalidValue(
            f"Invalid 'input': clients write token ids for `{asked.model[:MAX_QUOTED_CHARS]}` in {encoding}, and this server reads"
            " cl100k_base. Send texts.",
            param="input",
        )


def refuse_other_length(max_tokens: int | None, model: Model, *, what: str) -> None:
    """Raises InvalidValue for a `truncate_prompt_tokens` other than the model's length. `what` is cut: texts or documents."""
    if max_tokens is not None and max_tokens != (reads := model.describe().max_tokens):
        raise InvalidValue(
            f"Invalid value for 'truncate_prompt_tokens': {what} are cut to the {reads} tokens that the model `{model.name}` reads;"
            f" send {reads} or -1.",
            param="truncate_prompt_tokens",
        )


def _too_many_dimensions(asked: int, model: Model) -> InvalidValue:
    """The error for too many dimensions. Clients size their stores by OpenAI's model names, so it says what to set instead."""
    return InvalidValue(
        f"Invalid value for 'dimensions': {asked}. The model `{model.name}` gives {model.dimensions}; set your client's dimension"
        f" to {model.dimensions} or less, or leave it out. Must be less than or equal to {model.dimensions}.",
        param="dimensions",
    )


def _refuse_misread(asked: EmbeddingsRequest, headers: Headers) -> None:
    """Raises InvalidValue if OpenAI's own SDK would read the reply's base64 as float32, whatever it is, and return noise.

    The SDK asks for base64 unless the caller names a format, so its body is the same as that of a client that decodes base64
    by its type, as Voyage's does: only its headers differ.
    """
    dtype = asked.output_dtypes[0]
    if dtype == "float" or asked.encoding_format != "base64":
        return
    agent = value_of(headers, b"user-agent") or b""
    if value_of(headers, b"x-stainless-lang") is not None or OPENAI_SDK in agent.lower():
        raise InvalidValue(
            "Invalid value for 'encoding_format': OpenAI's SDKs ask for 'base64' and read it as float32, whatever the output_dtype;"
            f" with '{dtype}' that would be noise. Send encoding_format 'float': the reply then has numbers.",
            param="encoding_format",
        )


def _encode(done: Embedded) -> bytes:
    asked = done.asked
    return wire_response.encode(
        done.as_dtype(asked.output_dtypes[0]), model=asked.model, encoding_format=asked.encoding_format, num_tokens=done.num_tokens
    )
