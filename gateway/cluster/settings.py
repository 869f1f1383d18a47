"""The settings of a row of the backend `ray`: what a replica loads, where replicas run, how many there are."""

import re
from typing import Annotated

from msgspec import Meta, Struct, structs

from gateway.engine.settings import LocalSettings

BACKEND = "ray"  # the backend's name
MAX_SECONDS = 24 * 3600


class Replicas(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The number of replicas: between `min` and `max`, as the load needs. With a `min` of 0, the first request starts one."""

    min: Annotated[int, Meta(ge=0, le=10_000)] = 1
    max: Annotated[int, Meta(ge=1, le=10_000)] = 1

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ValueError("replicas.min must not be above replicas.max")


class Resources(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The resources that a node must have free for one replica. `custom` are Ray's custom resources, by name."""

    num_cpus: Annotated[float, Meta(ge=0, le=4096)] = 2
    num_gpus: Annotated[float, Meta(ge=0, le=64)] = 0
    memory_bytes: Annotated[int, Meta(ge=0)] = 0
    custom: dict[str, Annotated[float, Meta(ge=0)]] = {}


class RaySettings(LocalSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    address: Annotated[
        str,
        Meta(
            min_length=1,
            description='The cluster: "HOST:PORT" of its head, or "auto" for the one that the Ray node of this host belongs to.'
            " Either needs such a node here; one of no CPUs will do (ray start --num-cpus=0).",
        ),
    ] = "auto"
    application: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{0,100}$",
            description="The name of the Ray Serve application. Empty takes the model's own, - for what it cannot have.",
        ),
    ] = ""
    replicas: Annotated[
        Replicas,
        Meta(description="How many copies of the model there are: between min and max, as the load needs. gateway cluster deploy."),
    ] = Replicas()
    resources: Annotated[
        Resources,
        Meta(
            description="What one replica takes of a node: num_cpus, which are its threads too, num_gpus, memory_bytes, and Ray's"
            " custom resources by their names."
        ),
    ] = Resources()
    target_backlog_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=MAX_SECONDS,
            description="The backlog a replica should have at most: tokens that wait in it over the tokens a second it was measured"
            " to do. More than that, and replicas are added.",
        ),
    ] = 1.0
    target_queue_tokens: Annotated[
        int, Meta(ge=0, description="Above 0, replicas are also added where more tokens than this wait in each.")
    ] = 0
    target_busy_ratio: Annotated[
        float,
        Meta(gt=0, le=1, description="The share of its measured tokens a second that a replica should be asked for at most."),
    ] = 0.8
    upscale_delay_seconds: Annotated[
        float, Meta(ge=0, le=MAX_SECONDS, description="How long more replicas must be needed before they are started.")
    ] = 5.0
    downscale_delay_seconds: Annotated[
        float, Meta(ge=0, le=MAX_SECONDS, description="How long fewer replicas must be enough before some are stopped.")
    ] = 300.0
    look_back_seconds: Annotated[
        float, Meta(ge=1, le=MAX_SECONDS, description="The load that replicas report is averaged over this time.")
    ] = 10.0
    max_ongoing_requests: Annotated[
        int,
        Meta(
            ge=1,
            le=100_000,
            description="Requests a replica holds at once; its batcher mixes them. engine.max_queue_tokens bounds their tokens.",
        ),
    ] = 256
    max_queued_requests: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Requests of one gateway that may wait until a replica takes them; beyond it 503."),
    ] = 512
    surge_percent: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="How many more replicas than the target an update may start before it stops old ones, one at least. 0 where"
            " the cluster has no room for more: old ones stop first, and requests wait for new ones.",
        ),
    ] = 25
    node_data_dir: Annotated[
        str,
        Meta(
            description="The folder of compiled models as the nodes see it: storage they share, so that one compiles for all. Empty"
            " is each node's own data folder: compiled where a replica lands."
        ),
    ] = ""

    @property
    def local(self) -> LocalSettings:
        """The settings for the engine in a replica."""
        return LocalSettings(**{field.name: getattr(self, field.name) for field in structs.fields(LocalSettings)})

    def application_of(self, model: str) -> str:
        return self.application or re.sub(r"[^A-Za-z0-9_-]+", "-", model)[:100]
