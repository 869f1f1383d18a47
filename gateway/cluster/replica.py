"""A replica: the local engine inside Ray Serve, unchanged, with its artifact, its batcher and its device threads.

The gateway tokenises, with the tokenizer from the replica's own ReplicaInfo, so a vector is the same wherever it is made.
"""

import asyncio
import math
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.calls.message import EmbedCall, EmbedRefusal, encode
from gateway.calls.packing import unpack
from gateway.calls.vector_call import prepared_of, replica_info, result_of
from gateway.cluster.policy import BACKLOG_SECONDS, BUSY_RATIO, QUEUE_TOKENS
from gateway.cluster.settings import Resources
from gateway.config import EngineSettings, LimitSettings, StoreSettings
from gateway.embedding.backend import BackendContext
from gateway.engine.embedder import LocalEmbedder
from gateway.engine.settings import LocalSettings
from gateway.errors import GatewayError, InvalidValue, OperatorError, Unavailable, Unembeddable
from gateway.metrics import Metrics

MAX_ON_LOOP_INTEGERS = 64 * 1024  # a thread unpacks longer arrays
NAMESPACE = b"embeddings-gateway"

decode_call = msgspec.msgpack.Decoder(EmbedCall).decode


class ReplicaConfig(Struct, frozen=True, kw_only=True):
    """A replica's configuration: the settings that its vectors and its engine depend on, and none of the gateway's own."""

    model: str
    application: str
    settings: LocalSettings
    resources: Resources
    engine: EngineSettings
    limits: LimitSettings
    data_dir: str
    fingerprint: str | None


class Replica:
    """A deployment of Ray Serve. It returns errors instead of raising them: Ray logs raised ones with a stack, and pickles them."""

    async def __init__(self, config: bytes) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Loads the model. Raises OperatorError, also for vectors other than other replicas'; `gateway cluster status` shows it."""
        self.config = msgspec.json.decode(config, type=ReplicaConfig)
        data_dir = Path(self.config.data_dir) if self.config.data_dir else StoreSettings().folder
        context = BackendContext(
            self.config.model,
            self.config.limits,
            fit_engine(self.config.engine, self.config.resources),
            Metrics().of_model(self.config.model),
            data_dir,
        )
        self.local = LocalEmbedder(place_store(self.config.settings, self.config.resources), context)
        await self.local.start()
        self.fingerprint_here = self.local.describe().fingerprint
        refuse_other_vectors(self.config.application, self.config.fingerprint, self.fingerprint_here)
        self.done_tokens = 0
        self.last_report = (time.monotonic(), 0)

    async def describe(self) -> bytes:
        """The replica's ReplicaInfo, encoded."""
        return encode(replica_info(self.local, self.config.settings))

    async def fingerprint(self) -> str:
        return self.fingerprint_here

    async def embed(self, header: bytes, packed: NDArray[np.int32]) -> tuple[bytes, NDArray[np.float32] | None]:
        """Answers an EmbedCall. Returns an encoded EmbedResult with rows of shape (n, dimensions), float32, or an EmbedRefusal."""
        call = decode_call(header)
        try:
            if call.fingerprint != self.fingerprint_here:
                return encode(EmbedRefusal(number=call.number, code="other_vectors", reason=self.fingerprint_here)), None
            async with asyncio.timeout(call.seconds):
                return await self.embed_windows(call, packed)
        except TimeoutError:
            refused = EmbedRefusal(number=call.number, code="timeout", retry_after_seconds=self.local.batcher.backlog_seconds)
        except Unembeddable as error:
            refused = EmbedRefusal(number=call.number, code=error.outcome, where=error.where, reason=error.reason)
        except InvalidValue as error:  # the rows have more numbers than a reply may have
            refused = EmbedRefusal(number=call.number, code=error.outcome, where=error.param or "", reason=error.message)
        except Unavailable as error:
            refused = EmbedRefusal(number=call.number, code=error.outcome, retry_after_seconds=error.retry_after_seconds or 1.0)
        except GatewayError as error:
            refused = EmbedRefusal(number=call.number, code="failed", reason=type(error).__name__)
        return encode(refused), None

    async def embed_windows(self, call: EmbedCall, array: NDArray[np.int32]) -> tuple[bytes, NDArray[np.float32]]:
        packed = unpack(array) if len(array) <= MAX_ON_LOOP_INTEGERS else await asyncio.to_thread(unpack, array)
        vectors = await self.local.embed(prepared_of(call, packed, self.local.describe().kind))
        self.done_tokens += sum(map(len, packed.work.windows))
        done = result_of(call.number, vectors, backlog_seconds=self.local.batcher.backlog_seconds)
        return encode(done), vectors.rows

    async def check_health(self) -> None:
        """Raises OperatorError if only a new replica helps: Ray Serve then replaces this one."""
        health = self.local.health()
        if health.state == "failed":
            raise OperatorError(health.detail)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The policy's signals. `busy_ratio` is the tokens done since the last report over those that were possible."""
        batcher = self.local.batcher
        now, before = (time.monotonic(), self.done_tokens), self.last_report
        self.last_report = now
        possible = max(now[0] - before[0], 1e-3) * batcher.tokens_per_second * batcher.num_devices
        return {
            BACKLOG_SECONDS: batcher.backlog_seconds,
            QUEUE_TOKENS: float(batcher.num_tokens),
            BUSY_RATIO: min(1.0, (now[1] - before[1]) / possible),
        }


def fit_engine(engine: EngineSettings, resources: Resources) -> EngineSettings:
    """One thread for each CPU of the replica, unless set: replicas may share a node, and each sees all of the node's cores."""
    threads = engine.threads or max(1, math.ceil(resources.num_cpus))
    return msgspec.structs.replace(engine, threads=threads)


def place_store(settings: LocalSettings, resources: Resources) -> LocalSettings:
    """Uses the CPU if the replica reserved no GPU, even if its node has some."""
    is_on_cpu = settings.device == "auto" and not resources.num_gpus
    return msgspec.structs.replace(settings, device="cpu") if is_on_cpu else settings


def refuse_other_vectors(application: str, pinned: str | None, found: str) -> None:
    """The first replica of an application writes its fingerprint to the cluster's key-value store; all others must have the same.

    So vectors of nodes with other CPUs, or of a model that changed on disk, are not mixed in silence.
    Raises OperatorError if the fingerprint differs from that, or from the pinned one.
    """
    if pinned is not None and pinned != found:
        raise OperatorError(f"these are not the pinned vectors: pinned {pinned}, found {found}")
    agreed = agree(application, found)
    if agreed != found:
        raise OperatorError(
            f"the application {application} has vectors {agreed}, this replica {found}: set precision and device where its nodes"
            " differ, or deploy with --new-vectors"
        )


def agree(application: str, fingerprint: str) -> str:
    """Writes `fingerprint` if the application has none yet. Returns the one that is stored."""
    from ray.experimental import internal_kv  # noqa: PLC0415 - ray is imported where it is used

    key = vectors_key(application)
    internal_kv._internal_kv_put(key, fingerprint.encode(), overwrite=False, namespace=NAMESPACE)  # noqa: SLF001 - its only form
    held: Any = internal_kv._internal_kv_get(key, namespace=NAMESPACE)  # noqa: SLF001
    return held.decode() if held else fingerprint


def vectors_key(application: str) -> bytes:
    return f"{application}/vectors".encode()
