"""Access control of a front: the engine process has the keys, and a front remembers its answers for a moment."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from gateway.access.keys.key import Caller, digest_of
from gateway.access.usage.recorder import Counts
from gateway.calls.engine_message import AuthenticateCall
from gateway.processes.engine_client import ANSWER_SECONDS, EngineClient
from gateway.processes.use_buffer import UseBuffer

# How long a caller is remembered. A key that expires, and a key store that is away for too long, are noticed that much later; of a
# revoked or changed key the engine process tells at once.
KNOWN_SECONDS = 1.0
MAX_KNOWN = 10_000  # 5 MB; beyond it the caller that was asked for first is asked for again


@dataclass(frozen=True, slots=True)
class _KnownCaller:
    caller: Caller
    until: float


class RemoteAccess:
    """A `RequestAccess` with API keys. `clock` is in seconds, from any zero."""

    def __init__(self, client: EngineClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self.clock = clock
        self.known: OrderedDict[bytes, _KnownCaller] = OrderedDict()  # by the key's digest, in the order of asking
        self.num_changes = 0
        self.uses = UseBuffer(client)

    async def authenticate(self, read_key: Callable[[], str]) -> Caller:
        """Returns the caller. Raises InvalidKey, StoreUnavailable, EngineUnavailable, or what `read_key` raises."""
        key = read_key()
        digest = digest_of(key)
        known = self.known.get(digest)
        if known is not None and self.clock() < known.until:
            return known.caller
        num_changes = self.num_changes
        until = self.clock() + KNOWN_SECONDS
        answer, _ = await self.client.call(AuthenticateCall, key=key, within_seconds=ANSWER_SECONDS)
        if num_changes == self.num_changes:  # else the answer may be from before the change
            self.remember(digest, _KnownCaller(answer.caller, until))
        caller: Caller = answer.caller
        return caller

    def remember(self, digest: bytes, known: _KnownCaller) -> None:
        self.known[digest] = known
        self.known.move_to_end(digest)
        if len(self.known) > MAX_KNOWN:
            self.known.popitem(last=False)

    def forget(self) -> None:
        """Forgets every caller: a key was changed."""
        self.num_changes += 1
        self.known.clear()

    def refuse_spent(self, caller: Caller) -> None:
        """Does nothing: the request's lease asks the engine process."""

    def record(self, caller: Caller, *, model: str, num_inputs: int, num_tokens: int, num_cached_tokens: int) -> None:
        self.uses.add(caller, model, Counts(1, num_inputs, num_tokens, num_cached_tokens))

    def close(self) -> None:
        """Tells the engine process what it does not know yet."""
        self.uses.tell()
