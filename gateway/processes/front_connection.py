"""The engine process's end of one front's channel: answers each message of FrontMessage."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import msgspec

from gateway.api.tokenization import tokenizer_of
from gateway.app import Gateway
from gateway.calls.channel import Channel, ChannelClosed
from gateway.calls.engine_message import (
    AuthenticateCall,
    BudgetCall,
    CallerResult,
    CallFailure,
    ChargeLease,
    Commit,
    Configure,
    DecodeCall,
    DecodeResult,
    Done,
    EmbedPrepared,
    EnterLease,
    ExitLease,
    HTTPBody,
    HTTPCall,
    HTTPCredit,
    InfoCall,
    ModelInfo,
    PrepareCall,
    ReadyCall,
    RecordUse,
    Released,
    TokenizeCall,
    TokenizeResult,
    from_front,
)
from gateway.calls.message import CancelCall, EmbedCall
from gateway.calls.vector_call import replica_info
from gateway.embedding.embedder import Inputs
from gateway.embedding.model_use import closing_use
from gateway.errors import ConfigurationError
from gateway.log import get_logger
from gateway.processes.embed_calls import EmbedCalls
from gateway.processes.front_calls import FrontCalls
from gateway.processes.front_leases import FrontLeases
from gateway.processes.held_generations import HeldGenerations
from gateway.processes.key_watch import KeyWatch
from gateway.processes.model_states import is_tokenized_here, local_of, state_of
from gateway.processes.prepared_calls import PreparedCalls
from gateway.processes.relayed_request import RelayedRequest
from gateway.reload.generation import Generation

log = get_logger()

CONFIGURE_SECONDS = 30.0  # for a front to build the parts of a configuration: milliseconds, unless it hangs


class FrontConnection:
    """`keys` notes whose callers the front remembers. `update` sends the states of models that changed. `on_lost` is called once
    the front is gone and its work is cancelled.
    """

    def __init__(
        self,
        front: int,
        gateway: Gateway,
        *,
        keys: KeyWatch,
        update: Callable[[], None],
        on_lost: Callable[["FrontConnection"], None],
    ) -> None:
        self.front = front
        self.gateway = gateway
        self.keys = keys
        self.update = update
        self.notify_lost = on_lost
        self.channel = Channel(from_front, on_message=self.on_message, on_lost=self.on_lost, calls_first=False)
        self.calls = calls = FrontCalls(self.channel)
        self.generations = HeldGenerations()
        self.leases = FrontLeases(calls)
        self.prepared = PreparedCalls(calls, self.leases, self.generations, gateway.tracing, gateway.loader)
        self.embeds = EmbedCalls(calls, self.leases, self.generations, lambda: gateway.generation, gateway.loader)
        self.requests: dict[int, RelayedRequest] = {}
        self.handlers: dict[type, Callable[[Any, bytes], None]] = {
            EmbedCall: self.embeds.begin,
            EnterLease: lambda call, _: self.leases.enter(call, gateway.generation),
            ExitLease: lambda message, _: self.leases.exit(message),
            RecordUse: self.on_use,
            CancelCall: self.on_cancel,
            AuthenticateCall: self.in_task(self.authenticate),
            BudgetCall: self.on_budget,
            ChargeLease: self.in_task(self.leases.charge),
            PrepareCall: self.in_task(self.prepared.prepare),
            EmbedPrepared: self.in_task(self.prepared.embed),
            TokenizeCall: self.in_task(self.tokenize),
            DecodeCall: self.in_task(self.decode),
            ReadyCall: self.in_task(self.wait_ready),
            InfoCall: self.in_task(self.describe),
            HTTPCall: self.on_request,
            HTTPBody: self.on_body,
            HTTPCredit: self.on_credit,
            Released: lambda message, _: self.generations.release(message.generation),
        }

    async def open(self, connection: socket.socket) -> None:
        await self.channel.open(connection)

    def on_message(self, message: Any, payload: bytes) -> None:
        handle = self.handlers.get(type(message))
        if handle is None:
            return  # a late answer to a call of ours that is no longer waited for
        try:
            handle(message, payload)
        except Exception as error:
            if number := getattr(message, "number", 0):
                self.calls.fail(number, error)
            else:
                log.exception("internal_error")

    def in_task(self, answer: Callable[[Any], Coroutine[Any, Any, None]]) -> Callable[[Any, bytes], None]:
        return lambda call, _: self.calls.launch(call.number, answer(call))

    def on_cancel(self, message: CancelCall, _: bytes) -> None:
        self.calls.cancel(message.number)
        self.prepared.drop(message.number)
        self.requests.pop(message.number, None)  # its task may not have begun

    def on_use(self, message: RecordUse, _: bytes) -> None:
        self.gateway.access_control.record(
            message.caller, model=message.model, num_inputs=message.num_inputs, num_tokens=message.num_tokens,
            num_cached_tokens=message.num_cached_tokens, num_requests=message.num_requests,
        )  # fmt: skip

    def on_budget(self, call: BudgetCall, _: bytes) -> None:
        self.gateway.access_control.refuse_spent(call.caller)
        self.calls.answer(Done(number=call.number))

    async def authenticate(self, call: AuthenticateCall) -> None:
        caller = await self.gateway.access_control.authenticate(lambda: call.key)
        self.keys.note(call.key)
        self.calls.answer(CallerResult(number=call.number, caller=caller))

    async def tokenize(self, call: TokenizeCall) -> None:
        model, inputs = self.generations.model(call.generation, call.model), _due_in(call.inputs, call.seconds)
        with closing_use(await self.gateway.loader.acquire(model, model.name, deadline=inputs.deadline)):
            texts = await tokenizer_of(model).tokenize(inputs, add_special_tokens=call.add_special_tokens)
        self.calls.answer(TokenizeResult(number=call.number, texts=texts))

    async def decode(self, call: DecodeCall) -> None:
        model, inputs = self.generations.model(call.generation, call.model), _due_in(call.inputs, call.seconds)
        with closing_use(await self.gateway.loader.acquire(model, model.name, deadline=inputs.deadline)):
            texts = await tokenizer_of(model).decode(inputs, skip_special_tokens=call.skip_special_tokens)
        self.calls.answer(DecodeResult(number=call.number, texts=texts))

    async def wait_ready(self, call: ReadyCall) -> None:
        """Waits until the model can serve. The front learns of its description before the answer."""
        model = self.generations.model(call.generation, call.model)
        await self.gateway.loader.ensure_ready(model, call.name, deadline=time.monotonic() + call.seconds)
        self.update()
        self.calls.answer(Done(number=call.number))

    async def describe(self, call: InfoCall) -> None:
        model = self.generations.model(call.generation, call.model)
        local = local_of(model)
        info = None
        if local is not None and not is_tokenized_here(model):
            with closing_use(self.gateway.loader.enter(model)):
                info = await asyncio.to_thread(replica_info, local, local.settings)
        self.calls.answer(ModelInfo(number=call.number, info=info))

    def on_request(self, call: HTTPCall, payload: bytes) -> None:
        request = self.requests[call.number] = RelayedRequest(call, payload, self.calls)
        self.calls.launch(call.number, self.relay(request))

    async def relay(self, request: RelayedRequest) -> None:
        try:
            await request.answer(self.gateway.generation)
        finally:
            self.requests.pop(request.call.number, None)

    def on_body(self, message: HTTPBody, payload: bytes) -> None:
        if request := self.requests.get(message.number):
            request.on_body(message, payload)

    def on_credit(self, message: HTTPCredit, _: bytes) -> None:
        if request := self.requests.get(message.number):
            request.on_credit(message)

    def configure(self, generation: Generation) -> int:
        """Asks the front to build a generation's parts. Returns the number of the call. Raises ChannelClosed."""
        number = self.channel.begin_call()
        self.generations.hold(generation)
        self.channel.send(
            Configure(
                number=number,
                generation=generation.number,
                config=msgspec.Raw(msgspec.msgpack.encode(generation.config)),
                models=[state_of(model) for model in generation.catalog.models],
                methods=dict(generation.app.methods),
            )
        )
        return number

    async def wait_configured(self, number: int) -> None:
        """Raises ConfigurationError if the front refuses, or does not answer. A front that is gone needs nothing."""
        try:
            async with asyncio.timeout(CONFIGURE_SECONDS):
                answer, _ = await self.channel.answer_to(number)
        except ChannelClosed:
            return
        except TimeoutError:
            raise ConfigurationError(f"front {self.front} does not answer") from None
        if isinstance(answer, CallFailure):
            raise ConfigurationError(str(answer.attributes.get("message") or answer.error))

    def commit(self, generation: Generation) -> None:
        """Lets a generation take effect in the front, which builds it first if it was not asked to yet."""
        if self.channel.is_closed:
            return
        if generation.number not in self.generations.by_number:
            self.launch_configure(generation)
        self.channel.send(Commit(generation=generation.number))

    def launch_configure(self, generation: Generation) -> None:
        number = self.configure(generation)
        self.calls.launch(number, self.wait_configured_at_start(number))

    async def wait_configured_at_start(self, number: int) -> None:
        try:
            await self.wait_configured(number)
        except ConfigurationError as error:
            log.error("front_refused_configuration", front=self.front, reason=str(error))  # noqa: TRY400 - its text says all

    def on_lost(self) -> None:
        """Cancels the front's work, and returns what it held."""
        self.calls.close()
        self.leases.close()
        self.prepared.close()
        self.requests.clear()
        self.generations.close()
        self.notify_lost(self)

    def close(self) -> None:
        self.channel.close()


def _due_in(inputs: Inputs, seconds: float) -> Inputs:
    """The inputs, with their deadline on the clock of this process."""
    return replace(inputs, deadline=time.monotonic() + seconds)
