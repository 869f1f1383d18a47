"""A gateway whose model misbehaves as a test tells it to.

The model is the real one, with its queue and its device threads; only what a device runs is a fake. It reads words, a token each.
"""

import asyncio
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from gateway.app import Gateway
from gateway.config import (
    AuthSettings,
    Config,
    EngineSettings,
    LimitSettings,
    ModelRow,
    ServerSettings,
    StoreSettings,
    TraceSettings,
)
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.identity import Identity
from gateway.engine.loaded_model import LoadedModel
from gateway.engine.settings import LocalSettings
from gateway.testing.fakes import FakeEncoder, hashed
from gateway.testing.socket_client import BOUND_SECONDS, sent

DIMENSIONS, MAX_TOKENS = 4, 16
KILLS, NAN = "kills", "nan"
NOT_TRACED = TraceSettings()
WORDS = [KILLS, NAN, *map(str, range(1000))]


class Killed(BaseException):
    """What ends a device thread: no Exception, so that nothing of the device's handles it."""


class HeldEncoder(FakeEncoder):
    """Dies of the word "kills", has no vector for the word "nan", and can be held in the middle of a batch."""

    def __init__(self):
        super().__init__(dimensions=DIMENSIONS, max_tokens=MAX_TOKENS)
        words = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="0"))
        words.pre_tokenizer = WhitespaceSplit()
        self.info = replace(self.info, tokenizer_json=words.to_str())
        self.fails_on = {WORDS.index(KILLS): Killed}
        self.nan_on = {WORDS.index(NAN)}
        self.is_running, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def embed(self, windows):
        self.is_running.set()
        assert self.may_go_on.wait(BOUND_SECONDS)
        return super().embed(windows)

    @contextmanager
    def held(self):
        """Whatever batch it begins ends only after the with block."""
        self.is_running.clear()
        self.may_go_on.clear()
        try:
            yield
        finally:
            self.may_go_on.set()


class Faulty(LocalEmbedder):
    """A local model of encoders that are there already."""

    def __init__(self, settings, context, encoders):
        super().__init__(settings, context)
        self.encoders = encoders
        self.infos = [encoder.info for encoder in encoders]

    def load(self):
        for encoder, info in zip(self.encoders, self.infos, strict=True):
            encoder.info = info  # with the tokenizer, which a load takes out
        identity = Identity(weights="w" * 64, tokenizer="t" * 64, pooling="p" * 64, configuration="c" * 64, created=1_700_000_000)
        self.start_devices(LoadedModel(list(self.encoders), identity))


class FaultyBackend:
    name = "faulty"
    settings = LocalSettings

    def __init__(self, encoders):
        self.encoders = encoders

    def build(self, settings, context):
        return Faulty(settings, context, self.encoders)


def gateway_of(*encoders, folder, max_queue_tokens=1000, traces=NOT_TRACED, **server):
    config = Config(
        server=ServerSettings(port=0, **server),
        auth=AuthSettings(mode="none"),
        limits=LimitSettings(max_request_tokens=100),
        engine=EngineSettings(max_queue_tokens=max_queue_tokens, warmup_seconds=0),
        store=StoreSettings(data_dir=str(folder)),
        models=(ModelRow(name="m", backend="faulty", settings={"source": "none"}),),
        traces=traces,
    )
    return Gateway(config, backends=[FaultyBackend(encoders)])


def embedded(text):
    """The vector of a text of the words 0 to 999; of more than a window holds, the windows' mean."""
    ids = [WORDS.index(word) for word in text.split()]
    windows = [ids[start : start + MAX_TOKENS] for start in range(0, len(ids), MAX_TOKENS)]
    mean = np.average([hashed(str(window), DIMENSIONS) for window in windows], axis=0, weights=[len(window) for window in windows])
    return mean / np.linalg.norm(mean)


def metric(gateway, name, **labels):
    """The value of one sample, 0 where there is none."""
    return gateway.metrics.registry.get_sample_value(name, labels) or 0


def num_queued(gateway):
    return metric(gateway, "gateway_queue_inputs", model="m")


def is_at_rest(gateway):
    """Nothing waits, nothing is held, nobody is being answered."""
    admission = gateway.admission
    waiting = [metric(gateway, f"gateway_{name}", model="m") for name in ("queue_inputs", "queue_tokens", "backlog_seconds")]
    return not any([*waiting, metric(gateway, "gateway_http_requests_in_flight"), admission.num_requests, admission.num_bytes])


async def begun(address, encoder, text):
    """A request whose batch is running: until the encoder is no longer held, its device has no time for others."""
    [task] = sent(address, [text])
    assert await asyncio.to_thread(encoder.is_running.wait, BOUND_SECONDS)
    return task


def assert_vectors(reply, texts):
    assert reply.status == 200, reply
    np.testing.assert_allclose(reply.rows, [embedded(text) for text in texts], atol=1e-6)
