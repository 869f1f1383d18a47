"""Asks an upstream in its own words, as often as it needs, and makes vectors of what it answers. Learns how it must be asked."""

import asyncio
import math
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray
from yarl import URL

from gateway.embedding.embedder import Inputs, Vectors
from gateway.embedding.long_input import Rule
from gateway.embedding.prompt import INSTRUCTION, instruction_format_of
from gateway.embedding.vectors import made_unit
from gateway.log import get_logger
from gateway.metrics import UpstreamMetrics
from gateway.upstream import failures
from gateway.upstream.connection import Answer, Broken, Connection
from gateway.upstream.dialect import Ask, Dialect, Limits
from gateway.upstream.estimate import apportioned, is_honest
from gateway.upstream.exchange import Call, Exchange
from gateway.upstream.failures import Failed, Failure, Subject
from gateway.upstream.reading import Nonsense, NotANumber, Reading, array
from gateway.upstream.settings import AnySettings
from gateway.upstream.split import parts

OK = 200
MAX_DIMENSIONS = 65_536  # of a reply before the dimensions are known
# A number in JSON is at most 24 characters and a separator; rows and the reply have words around them.
BYTES_PER_NUMBER, BYTES_PER_ROW, BYTES_PER_REPLY = 32, 512, 64 * 1024
MAX_ON_LOOP_BYTES = 64 * 1024

encode = msgspec.json.Encoder().encode
log = get_logger()


class Speaker:
    """`dimensions`, `their_fingerprint`, `max_inputs` and `as_base64` are what is known of the upstream by now."""

    def __init__(
        self, settings: AnySettings, dialect: Dialect, *, connection: Connection, exchange: Exchange, metrics: UpstreamMetrics
    ) -> None:
        self.settings = settings
        self.dialect = dialect
        self.connection = connection
        self.exchange = exchange
        self.subject: Subject = exchange.subject
        self.metrics = metrics
        self.max_inputs = settings.max_inputs or dialect.max_inputs
        self.as_base64 = dialect.knows_base64
        self.dimensions: int | None = settings.dimensions
        self.their_fingerprint: str | None = None

    async def told_limits(self) -> Limits:
        """What the dialect's upstreams tell of themselves. Raises Failed."""
        if self.dialect.info_path is None or self.dialect.read_info is None:
            return Limits()
        for endpoint in self.exchange.endpoints.endpoints[:-1]:
            with suppress(Failed):  # where one is away, another of the same model will do
                return await self.limits_told_at(endpoint.beside(self.dialect.info_path), self.dialect.read_info)
        last = self.exchange.endpoints.endpoints[-1]
        return await self.limits_told_at(last.beside(self.dialect.info_path), self.dialect.read_info)

    async def limits_told_at(self, url: URL, read_info: Callable[[bytes], Limits]) -> Limits:
        try:
            answer = await self.connection.get(url, max_bytes=BYTES_PER_REPLY)
            if answer.status != OK:
                raise Failed(failures.of_answer(answer, Inputs([], is_array=False, caller="", deadline=0), self.subject))
            limits = read_info(answer.content)
        except Broken as broken:
            raise Failed(failures.of_broken(broken.kind, self.subject)) from None
        except Nonsense as nonsense:
            raise Failed(failures.of_nonsense(str(nonsense), self.subject)) from None
        self.max_inputs = self.settings.max_inputs or limits.max_inputs or self.dialect.max_inputs
        return limits

    async def embedded(self, inputs: Inputs, counts: list[int], rule: Rule) -> Vectors:
        """In as many calls as the upstream needs, some of them at once. The first that fails ends the others."""
        slices = parts(counts, max_inputs=self.max_inputs, max_tokens=self.settings.max_request_tokens)
        if len(slices) == 1:
            return await self.part(inputs, counts, rule)
        places = asyncio.Semaphore(self.settings.max_parallel)

        async def one(each: slice) -> Vectors:
            await places.acquire()
            vectors = await self.part(inputs.only(list(range(each.start, each.stop))), counts[each], rule)
            places.release()  # not after a failure: what still waits is then never sent
            return vectors

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(each), name="upstream-part") for each in slices]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        found = [task.result() for task in tasks]
        rows = np.concatenate([each.rows for each in found])
        return Vectors(rows, token_counts=[count for each in found for count in each.token_counts or ()])

    async def part(self, inputs: Inputs, counts: list[int], rule: Rule) -> Vectors:
        """In one call, unless the upstream says that it must be asked otherwise."""
        as_base64 = self.as_base64  # others under way may learn meanwhile that it is not to be had
        try:
            return await self.asked(inputs, counts, rule, as_base64=as_base64)
        except Failed as failed:
            if not self.has_learned(failed.failure, len(inputs.texts), as_base64=as_base64):
                raise
        return await self.embedded(inputs, counts, rule)

    def has_learned(self, failure: Failure, num_inputs: int, *, as_base64: bool) -> bool:
        """Whether the same inputs, asked for as they will be from now on, may be embedded."""
        if failure.max_inputs and failure.max_inputs < num_inputs:
            self.max_inputs = min(self.max_inputs, failure.max_inputs)
            log.warning("upstream_takes_fewer_inputs", model=self.subject.name, max_inputs=failure.max_inputs)
            return True
        if failure.no_base64 and as_base64:
            self.without_base64()
            return True
        return False

    def without_base64(self) -> None:
        if self.as_base64:
            self.as_base64 = False
            log.info("upstream_has_no_base64", model=self.subject.name)

    async def asked(self, inputs: Inputs, counts: list[int], rule: Rule, *, as_base64: bool) -> Vectors:
        texts = self.prompted(inputs)
        ask = Ask(texts, self.subject.model, self.settings, rule, inputs.normalize, as_base64)
        body = self.dialect.body(ask)
        is_large = sum(map(len, texts)) > MAX_ON_LOOP_BYTES
        content = await asyncio.to_thread(encode, body) if is_large else encode(body)
        max_bytes = BYTES_PER_REPLY + len(texts) * (BYTES_PER_ROW + BYTES_PER_NUMBER * (self.dimensions or MAX_DIMENSIONS))

        call = Call(content, max_bytes, partial(self.read, inputs), inputs.deadline or math.inf)
        reading, rows = await self.exchange.ask(self.connection, call)
        if as_base64 and isinstance(reading.vectors[0], list):
            self.without_base64()  # it was asked for bytes and gave numbers: it need not be asked again
        return Vectors(rows, token_counts=self.counted(reading.num_tokens, texts, counts))

    def prompted(self, inputs: Inputs) -> list[str]:
        if inputs.instruction is not None:
            form = self.settings.instruction_format or instruction_format_of(self.settings.prompts) or INSTRUCTION
            prompt = form.replace(INSTRUCTION, inputs.instruction)
        else:
            prompt = self.settings.prompts.get(inputs.input_type, "") if inputs.input_type else ""
        return [prompt + text for text in inputs.texts] if prompt else inputs.texts

    async def read(self, inputs: Inputs, answer: Answer) -> tuple[Reading, NDArray[np.float32]]:
        """Raises Failed where the answer is a refusal, or cannot be trusted."""
        if answer.status != OK:
            raise Failed(failures.of_answer(answer, inputs, self.subject))
        self.refuse_other_vectors(fingerprint_of(answer))
        try:
            if len(answer.content) > MAX_ON_LOOP_BYTES:
                return await asyncio.to_thread(self.understood, answer, inputs)
            return self.understood(answer, inputs)
        except Nonsense as nonsense:
            raise Failed(failures.of_nonsense(str(nonsense), self.subject)) from None
        except NotANumber as error:
            raise Failed(failures.of_not_a_number(inputs.where(error.position))) from None

    def refuse_other_vectors(self, fingerprint: str | None) -> None:
        """Another gateway tells which vectors it gives. Two kinds are never mixed."""
        if self.their_fingerprint is None:
            self.their_fingerprint = fingerprint
        elif fingerprint is not None and fingerprint != self.their_fingerprint:
            raise Failed(failures.of_nonsense("its vectors are others than when it was first asked", self.subject))

    def understood(self, answer: Answer, inputs: Inputs) -> tuple[Reading, NDArray[np.float32]]:
        reading = self.dialect.read(answer.content, answer.headers)
        rows = array(reading, len(inputs.texts), self.dimensions)
        return reading, made_unit(rows) if inputs.normalize else rows

    def counted(self, told: int | None, texts: list[str], estimates: list[int]) -> list[int]:
        """The upstream's own count, shared out among the inputs; the estimates where it tells none that can be true."""
        if told is not None and is_honest(told, texts):
            return apportioned(told, estimates)
        self.metrics.estimated_tokens.inc(sum(estimates))
        return estimates


def fingerprint_of(answer: Answer) -> str | None:
    """What another gateway calls its vectors. Anything else in that header is none, and gets into no reply, log or label."""
    told = answer.headers.get("x-gateway-fingerprint", "")
    return told if re.fullmatch(r"[\w.-]{1,128}", told, flags=re.ASCII) else None
