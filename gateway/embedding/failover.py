"""Failover over several embedders of the same model: the first available member serves, and the reply names it.

Only members with proven equal vectors serve: each embeds the same probe texts before its first use, and is refused if its vectors
differ. If a member fails, or is too slow, the next one gets the request. Client errors are not retried.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gateway.background import BackgroundTask, launch
from gateway.backoff import Backoff
from gateway.embedding.embedder import AnyEmbedder, Description, Health, Inputs, Prepared, Vectors, Verified
from gateway.embedding.equivalence import Rows, check_equivalent, differ, probe_vectors
from gateway.embedding.loading import wait_settled
from gateway.errors import (
    ConfigurationError,
    DeadlinePassed,
    GatewayError,
    InvalidValue,
    ModelUnavailable,
    OperatorError,
    Unembeddable,
)
from gateway.log import get_logger
from gateway.metrics import ModelMetrics

BACKEND = "group"  # the backend's name
FALLS_BACK = frozenset({502, 503})
REST_SECONDS = 5.0  # a member that failed is tried last for so long: one that hangs would cost every request its share of time
CHECKS = Backoff(first_seconds=5.0, max_seconds=300.0)  # between attempts to reach a member that was unavailable

Answer = TypeVar("Answer")

log = get_logger()


@dataclass(slots=True)
class Member:
    """A member of a group. `built` is its embedder without the cache. Probes use it, as members of one fingerprint share entries.

    `failure` is why it is refused for good; `cooling_until` is on the clock of `time.monotonic`. `fingerprint` is the one that was
    checked: if the member's changes, it is checked again. `refused` is the fingerprint that failed a later check, with the error:
    the member is checked again once it has another one.
    """

    name: str
    embedder: AnyEmbedder
    built: AnyEmbedder
    task: asyncio.Task[None] | None = None  # its start
    is_checked: bool = False
    failure: OperatorError | None = None
    fingerprint: str = ""
    refused: tuple[str, OperatorError] | None = None
    cooling_until: float = 0.0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True, slots=True)
class _MemberWork:
    """The inputs as `member` prepared them. Another member must prepare them anew."""

    member: Member
    prepared: Prepared[object]


class FailoverEmbedder:
    """An Embedder over its members. Its description is that of the first member that was reached."""

    def __init__(
        self, name: str, members: list[Member], metrics: ModelMetrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.members = members
        self.metrics = metrics
        self.clock = clock
        self.first: tuple[Description, Rows] | None = None  # every other member is compared with it
        self.first_name = ""
        self.state = Health("loading", "not started")
        self.background = BackgroundTask(f"group-{name}", self.watch, may_end=True)

    async def start(self) -> None:
        """Starts and checks the members. At least one must be reached; the others may be checked later, before their first use.

        Raises OperatorError if a member's vectors differ from the others', or if none can be reached.
        """
        reasons = []
        self.first = None
        for member in self.members:
            member.is_checked, member.failure = False, None
            try:
                await self.check(member)
            except (OperatorError, GatewayError) as error:
                if member.failure is not None or isinstance(error, ConfigurationError):
                    self.state = Health("failed", str(error))
                    raise
                reasons.append(f"{member.name}: {error}")
                log.warning("group_member_away", model=self.name, member=member.name, reason=str(error))
        if self.first is None:
            self.state = Health("failed", "no member can be reached")
            raise OperatorError(
                f"models[{self.name}]: no member can be reached: {'; '.join(reasons)}", category="no_member_reached"
            )
        self.state = Health("ready")
        if reasons:
            self.begin_watch()

    async def check(self, member: Member) -> None:
        """Starts a member and compares its vectors with the first one's. Raises OperatorError or GatewayError."""
        async with member.lock:
            if member.is_checked:
                return
            if member.failure is not None:
                raise member.failure
            await self.start_member(member)
            if isinstance(member.built, Verified):
                await member.built.verify()
            about = member.embedder.describe()
            if member.refused is not None and member.refused[0] == about.fingerprint:
                raise member.refused[1]
            names = self.first[0].prompts if self.first is not None else about.prompts
            try:
                found = (about, await probe_vectors(member.built, names))
                if self.first is None:
                    self.first, self.first_name = found, member.name
                check_equivalent(f"models[{self.name}]: the members {self.first_name} and {member.name}", self.first, found)
            except InvalidValue as error:  # only the first member has this prompt: this one would embed texts without it
                where = f"models[{self.name}]: the members {self.first_name} and {member.name}"
                member.failure = differ(f"{where} differ in prompts: {error.message}")
                raise member.failure from None
            except OperatorError as error:
                if member.fingerprint:  # it passed before, and its server has changed since: that may be undone
                    member.refused = (about.fingerprint, error)
                    log.warning("group_member_changed", model=self.name, member=member.name, reason=str(error))
                else:
                    member.failure = error
                raise
            member.is_checked, member.fingerprint = True, about.fingerprint

    async def start_member(self, member: Member) -> None:
        """Starts a member. A start that waits for an unavailable server goes on in the background.

        Raises as the member's start, and OperatorError while it waits.
        """
        if member.task is None or (member.task.done() and member.embedder.health().state != "ready"):
            member.task = launch(member.embedder.start(), name=f"start-{self.name}/{member.name}")
        await wait_settled(member.task, member.embedder)
        if not member.task.done():
            raise OperatorError(f"it is unavailable: {member.embedder.health().detail}", category="no_member_reached")
        member.task.result()

    def begin_watch(self) -> None:
        if self.background.death is not None:
            self.metrics.record_restart("group")
        self.background.start()

    async def watch(self) -> None:
        """Tries the members that were unavailable again, until each was checked or refused."""
        num_failures = 0
        while waiting := [member for member in self.members if not member.is_checked and member.failure is None]:
            num_failures += 1
            await asyncio.sleep(CHECKS.pause_seconds(num_failures))
            for member in waiting:
                await self.retry_member(member)

    async def retry_member(self, member: Member) -> bool:
        """Checks a member that was unavailable. Returns whether it can be used now."""
        try:
            await self.check(member)
        except (OperatorError, GatewayError):
            member.cooling_until = self.clock() + REST_SECONDS
        if member.failure is not None:
            log.error("group_member_refused", model=self.name, member=member.name, reason=str(member.failure))
        if not member.is_checked:
            return False
        log.info("group_member_back", model=self.name, member=member.name)
        return True

    async def prepare(self, inputs: Inputs) -> Prepared[_MemberWork]:
        """Prepared by the first member that can."""
        member, prepared = await self.ask_member(inputs, lambda member: member.embedder.prepare(inputs))
        return prepared.with_work(_MemberWork(member, prepared))

    async def embed(self, prepared: Prepared[_MemberWork]) -> Vectors:
        inputs, chosen = prepared.inputs, prepared.work

        async def embedded(member: Member) -> Vectors:
            return await member.embedder.embed(
                chosen.prepared if member is chosen.member else await member.embedder.prepare(inputs)
            )

        member, vectors = await self.ask_member(inputs, embedded)
        self.metrics.record_member_served(member.name, is_first=member is self.members[0])
        return replace(vectors, member=member.name, fingerprint=vectors.fingerprint or member.fingerprint)

    async def ask_member(self, inputs: Inputs, work: Callable[[Member], Awaitable[Answer]]) -> tuple[Member, Answer]:
        """The answer of the first member that takes such inputs and does not fail. Raises the first failure if all fail."""
        failure: GatewayError | None = None
        order = self.candidates()
        for number, member in enumerate(order):
            seconds = share(inputs.deadline, num_left=len(order) - number)
            try:
                if not member.is_checked and not await within(self.retry_member(member), seconds):
                    continue
                if _misreads(member.embedder.describe(), inputs):  # it was met after the group said what it takes
                    continue
                answer = await within(work(member), seconds)
                if member.embedder.describe().fingerprint != member.fingerprint:
                    member.is_checked = False
                    self.begin_watch()
                    if not await within(self.retry_member(member), seconds):
                        continue
            except GatewayError as error:
                is_refused = isinstance(error, Unembeddable) and error.is_of_server
                if error.status not in FALLS_BACK and not is_refused:
                    raise
                failure = failure or error
                if is_refused:  # only this input has no vector here: another server may have one, so the member need not cool down
                    self.metrics.record_member(member.name, error.outcome)
                else:
                    self.cool_down(member, error)
            else:
                return member, answer
        raise failure or ModelUnavailable("None of its servers can be reached.", retry_after_seconds=REST_SECONDS)

    def candidates(self) -> list[Member]:
        """Members in configured order; then those that are cooling down, and last those that were never reached."""
        now = self.clock()
        known = [member for member in self.members if member.is_checked or (member.failure is None and member.cooling_until <= now)]
        return sorted(known, key=lambda member: (not member.is_checked, member.cooling_until > now))

    def cool_down(self, member: Member, error: GatewayError) -> None:
        """Makes a member the last choice for REST_SECONDS. Logs that once, however many requests fail in that time."""
        if member.cooling_until <= self.clock():
            log.warning("group_member_failed", model=self.name, member=member.name, code=error.outcome)
        member.cooling_until = self.clock() + REST_SECONDS
        self.metrics.record_member(member.name, error.outcome)

    def describe(self) -> Description:
        if self.first is None:
            raise RuntimeError("a group is described once it is started")
        about = self.first[0]
        checked = [about, *(member.embedder.describe() for member in self.members if member.is_checked)]
        return replace(
            about,
            backend=BACKEND,
            num_bytes=sum(member.embedder.describe().num_bytes for member in self.members if member.is_checked),
            ranges=None,  # whose were they, while the first member is away?
            members=tuple(dict.fromkeys(each.fingerprint for each in checked[1:])),
            takes_token_ids=all(each.takes_token_ids for each in checked),
            takes_instruction=all(each.takes_instruction for each in checked),
        )

    def health(self) -> Health:
        states = {member.name: member.embedder.health() for member in self.members}
        checked = {member.name: states[member.name] for member in self.members if member.is_checked}
        learned = {f"{name}.{setting}": value for name, each in checked.items() for setting, value in each.learned.items()}
        own = (self.background.name,) if self.background.death is not None else ()
        dead = (*own, *(part for each in states.values() for part in each.dead_parts))
        has_failed = self.state.state == "ready" and all(each.state == "failed" for each in checked.values())
        state = Health("failed", "every member failed") if has_failed else self.state
        return replace(state, learned=learned, dead_parts=dead)

    async def close(self) -> None:
        self.state = Health("failed", "closed")
        await self.background.close()
        for member in self.members:
            if member.task is not None:
                member.task.cancel()
                await asyncio.gather(member.task, return_exceptions=True)
            await member.embedder.close()


def _misreads(about: Description, inputs: Inputs) -> bool:
    """Whether a model would pass over a part of the inputs that it does not take."""
    has_ids, has_instruction = inputs.token_ids is not None, inputs.instruction is not None
    return (has_ids and not about.takes_token_ids) or (has_instruction and not about.takes_instruction)


def share(deadline: float, *, num_left: int) -> float:
    """The seconds a member may take: half of the time left if other members remain, else all of it."""
    left = max(0.0, deadline - time.monotonic())
    return left / 2 if num_left > 1 else left


async def within(work: Awaitable[Answer], seconds: float) -> Answer:
    """Awaits `work`. Raises DeadlinePassed if it takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise DeadlinePassed from None
