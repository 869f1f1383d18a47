"""What a single text costs the engine process: `python -m benchmarks.engine_calls`.

This program plays the fronts: `--clients` calls are always under way, over `--channels` channels, each for one text of the corpus
that the fronts have tokenised. The device costs nothing. CPU time is the whole engine process's, from /proc: its event loop, its
device threads and the kernel's part.
"""

import argparse
import asyncio
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks import corpus
from benchmarks.free_device import FreeBackend
from benchmarks.machine import cores
from gateway import log
from gateway.access.keys.key import Allowance, Caller
from gateway.calls.channel import Channel
from gateway.calls.engine_message import CallFailure, Commit, Configure, Done, EnterLease, ExitLease, from_engine
from gateway.calls.message import EmbedCall
from gateway.calls.packing import pack
from gateway.config import CacheSettings, Config, ConfigSource, LogSettings, StoreSettings
from gateway.embedding.cache import keys_of, seed_of
from gateway.embedding.embedder import Inputs
from gateway.engine.encoder import Window
from gateway.engine.preprocessor import Windows
from gateway.processes import control
from gateway.processes.child import Child, fork, live
from gateway.processes.control_socket import ControlSocket
from gateway.processes.engine_process import EngineProcess
from gateway.processes.totals import Totals
from gateway.server.event_loop import loop_factory
from gateway.testing.folder import folder_of

RATES = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12}
LIMITED = Caller("limited", Allowance(**RATES))
QUEUED = Caller("queued", Allowance(**RATES, max_concurrent_requests=1000))


@dataclass(frozen=True)
class Text:
    """A tokenised text: the fields of its call that a front computes, and its payload."""

    digests: list[bytes]
    token_counts: list[int]
    payload: bytes


class Player:
    """One front's end of a channel."""

    def __init__(self) -> None:
        self.channel = Channel(from_engine, on_message=self.on_message)
        self.committed = asyncio.Event()
        self.fields: dict[str, Any] = {}

    def on_message(self, message: Any, _: bytes) -> None:
        if isinstance(message, Configure):
            self.configured = message
            self.channel.send(Done(number=message.number))
        elif isinstance(message, Commit):
            self.committed.set()

    async def embed(self, text: Text, lease: int = 0, entering: Caller | None = None) -> int:
        channel = self.channel
        number = channel.begin_call()
        channel.send(
            EmbedCall(
                number=number, seconds=30.0, caller="a", normalize=True, digests=text.digests, token_counts=text.token_counts,
                lease=lease, entering=entering, **self.fields,
            ),
            text.payload,
        )  # fmt: skip
        answer, _ = await channel.answer_to(number)
        if isinstance(answer, CallFailure):
            raise TypeError(answer)
        return number

    async def embed_limited(self, text: Text) -> None:
        """With a lease that the call itself enters, as for a caller far from its limits."""
        number = await self.embed(text, entering=LIMITED)
        self.channel.send(ExitLease(lease=number), is_urgent=False)

    async def embed_queued(self, text: Text) -> None:
        """With a lease that is entered first, as for a caller with a limit of concurrent requests."""
        number = self.channel.begin_call()
        self.channel.send(EnterLease(number=number, caller=QUEUED))
        await self.channel.answer_to(number)
        await self.embed(text, lease=number)
        self.channel.send(ExitLease(lease=number))


def cpu_seconds(pid: int) -> float:
    """Of all its threads, from the scheduler's own clock: ticks are too coarse where a turn takes less than one."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def engine(child: Child) -> None:
    os.sched_setaffinity(0, cores()[:1])

    async def serve() -> None:
        await EngineProcess(child, [FreeBackend()]).serve()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve())


def start(config: Config) -> tuple[int, ControlSocket]:
    """Forks an engine process, and waits until it serves."""
    child = {
        "role": "engine", "number": 0, "num_fronts": 1, "config": config, "source": ConfigSource(), "sockets": (),
        "urls": ("http://none",), "totals": Totals(1),
    }  # fmt: skip
    pid, end = fork(lambda own: live(Child(control=own, **child), engine))  # type: ignore[arg-type]
    supervisor = ControlSocket(end, control.from_child)
    while not any(isinstance(message, control.Ready) for message in supervisor.receive()):
        time.sleep(0.01)
    return pid, supervisor


async def connect(supervisor: ControlSocket, number: int) -> Player:
    ours, theirs = socket.socketpair()
    player = Player()
    await player.channel.open(ours)
    supervisor.send(control.encode(control.LinkHeader(number)), beside=theirs)
    await player.committed.wait()
    about = player.configured.models[0].description
    player.fields = {"generation": player.configured.generation, "model": 0, "fingerprint": about.fingerprint if about else ""}
    return player


def tokenised(player: Player, texts: list[str]) -> list[Text]:
    about = player.configured.models[0].description
    tokenizer = Tokenizer.from_file(str(folder_of(corpus.MODEL, download=False) / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    found = []
    for text in texts:
        inputs = Inputs([text], is_array=False, caller="a", deadline=0.0)
        ids = tokenizer.encode(text).ids
        packed = pack(inputs, Windows([Window(ids)], [1], [len(ids) - 2])).tobytes()
        found.append(Text(keys_of(inputs, seed_of(inputs, about)), [len(ids)], packed))  # type: ignore[arg-type]
    return found


def texts_and_batches(supervisor: ControlSocket) -> tuple[float, float]:
    """How many texts the devices have run so far, and in how many batches."""
    supervisor.send(control.encode(control.SamplesWanted()))
    while not (found := [message for message in supervisor.receive() if isinstance(message, control.Samples)]):
        time.sleep(0.01)
    samples = {name: value for family in found[-1].families for name, _, value in family.samples}
    return samples["gateway_batch_inputs_sum"], samples["gateway_batch_inputs_count"]


async def cost(
    name: str,
    pid: int,
    supervisor: ControlSocket,
    *,
    players: list[Player],
    texts: list[Text],
    ask: Callable[[Player, Text], Any],
    options: Any,
) -> None:
    """Runs one load, and prints what a call cost the engine process."""
    source: Iterator[Text] = cycle(texts)
    counts = [0]
    ended = asyncio.Event()

    async def client(player: Player) -> None:
        while not ended.is_set():
            await ask(player, next(source))
            counts[0] += 1

    clients = [asyncio.create_task(client(players[number % len(players)])) for number in range(options.clients)]
    await asyncio.sleep(options.seconds / 4)
    ran = texts_and_batches(supervisor)
    before, first, started = cpu_seconds(pid), counts[0], time.perf_counter()
    await asyncio.sleep(options.seconds)
    spent, done, seconds = cpu_seconds(pid) - before, counts[0] - first, time.perf_counter() - started
    num_texts, num_batches = (now - then for now, then in zip(texts_and_batches(supervisor), ran, strict=True))
    ended.set()
    await asyncio.gather(*clients)
    batches = f"{num_texts / num_batches:6.1f} a batch" if num_batches else ""
    print(f"{name:28} {1e6 * spent / done:7.1f} us CPU a text {done / seconds:9.0f} texts/s {batches}", flush=True)


async def measure(pid: int, supervisor: ControlSocket, options: Any, *, is_cached: bool) -> None:
    players = [await connect(supervisor, number) for number in range(options.channels)]
    sentences = [text for request in corpus.corpus().requests for text in request]
    texts = tokenised(players[0], sentences[:64] if is_cached else sentences)
    word = "cached" if is_cached else "uncached"
    await cost(word, pid, supervisor, players=players, texts=texts, ask=Player.embed, options=options)
    await cost(f"{word}, with limits", pid, supervisor, players=players, texts=texts, ask=Player.embed_limited, options=options)
    await cost(f"{word}, with a queue", pid, supervisor, players=players, texts=texts, ask=Player.embed_queued, options=options)
    for player in players:
        player.channel.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_calls", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    log.configure(level="warning", line_format="json")
    with tempfile.TemporaryDirectory(prefix="gateway-calls-") as folder:
        for _ in range(options.rounds):
            for is_cached in (False, True):
                # So small a cache that no text is found again: a miss still goes through the cache and the flights.
                cache = CacheSettings() if is_cached else CacheSettings(max_bytes=1_000_000)
                config = Config(cache=cache, log=LogSettings(level="warning"), store=StoreSettings(data_dir=str(Path(folder))))
                pid, supervisor = start(config)
                with asyncio.Runner(loop_factory=loop_factory()) as runner:
                    runner.run(measure(pid, supervisor, options, is_cached=is_cached))
                supervisor.send(control.encode(control.Stop(force=True)))
                os.waitpid(pid, 0)
                signal.set_wakeup_fd(-1)


if __name__ == "__main__":
    main()
