"""`[engine]` and `[cache]`: how this machine computes vectors, and how much memory caches them."""

from typing import Annotated

from msgspec import Meta

from gateway.config.setting import MB, YEAR, Settings, count


class EngineSettings(Settings, frozen=True):
    threads: Annotated[
        int,
        Meta(
            ge=0, description="CPU threads a model computes with; 0 takes all cores, or those that a container's CPU limit allows."
        ),
    ] = 0
    streams: Annotated[
        int,
        Meta(
            ge=0,
            le=64,
            description="Batches a compiled model runs at once on the CPU; 0 chooses by the number of cores, or that limit, so that"
            " none spans two NUMA nodes. 1 takes the least memory: each batch then uses all cores, and the weights are held once.",
        ),
    ] = 0
    max_batch_tokens: Annotated[
        int,
        Meta(ge=0, description="A batch holds at most this many tokens, its padding included; 0 chooses by device."),
    ] = 0
    max_queue_tokens: Annotated[
        int,
        count(description="Tokens that may wait for a model; beyond it requests are answered 503 with Retry-After."),
    ] = 1_000_000
    warmup_seconds: Annotated[
        float,
        Meta(ge=0, le=YEAR, description="The most time spent on trying common batch shapes before a model is called ready."),
    ] = 0.5
    memory_budget: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory for the models on this machine, in bytes: one that is loaded on first use takes the place of the"
            " least recently used ones that are idle. Those loaded at the start stay. 0 sets no bound.",
        ),
    ] = 0
    models_dir: Annotated[
        str | None,
        Meta(
            description="The folder of compiled models, which may be read-only where all are there; by default models in data_dir."
        ),
    ] = None


class CacheSettings(Settings, frozen=True):
    max_bytes: Annotated[
        int,
        Meta(
            ge=0,
            description="Memory for vectors made before, which are given again to whoever sends the same text; 0 turns it off.",
        ),
    ] = 256 * MB
