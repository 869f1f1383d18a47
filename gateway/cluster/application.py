"""A model row as an application of Ray Serve."""

import warnings
from typing import Any

import msgspec

from gateway.cluster.policy import Policy, options_of
from gateway.cluster.replica import Replica, ReplicaConfig
from gateway.cluster.settings import BACKEND, RaySettings
from gateway.config import Config, ModelRow, convert, load
from gateway.errors import ConfigurationError

MAX_PUSH_SECONDS = 2.0  # between two reports of a replica's load; Ray Serve's default of 10 is longer than a burst lasts
DRAIN_SECONDS = 60.0  # for the requests that a stopping replica still has
HEALTH_PERIOD_SECONDS = 5.0
# A replica never blocks its event loop, so Ray Serve need not run it on a separate thread.
ENVIRONMENT = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}


def settings_of(row: ModelRow) -> RaySettings:
    """The row's settings, typed. Raises ConfigurationError if they are wrong, or the row is not of the backend `ray`."""
    if row.backend != BACKEND:
        raise ConfigurationError(
            f"models[{row.name}].backend is '{row.backend}': only models of backend '{BACKEND}' run on a cluster"
        )
    return convert(row.settings, RaySettings, where=f"models[{row.name}]")


def order_of(row: ModelRow, config: Config) -> ReplicaConfig:
    settings = settings_of(row)
    return ReplicaConfig(
        model=row.name,
        application=settings.application_of(row.name),
        settings=settings.local,
        resources=settings.resources,
        engine=config.engine,
        limits=config.limits,
        data_dir=settings.node_data_dir,
        fingerprint=row.fingerprint,
    )


def application_of(row: ModelRow, config: Config) -> Any:
    """The row as an application that `serve.run` takes. Raises ConfigurationError."""
    from ray import serve  # noqa: PLC0415 - ray is imported where it is used

    order = msgspec.json.encode(order_of(row, config))
    with (
        warnings.catch_warnings()
    ):  # Ray plans to move metrics_interval_s to an environment variable of each node; until then it works
        warnings.simplefilter("ignore", DeprecationWarning)
        return serve.deployment(Replica).options(**options(settings_of(row))).bind(order)


def options(settings: RaySettings) -> dict[str, Any]:
    """The deployment options of Ray Serve. The access log is off: it would be a line for each call."""
    resources = settings.resources
    actor: dict[str, Any] = {
        "num_cpus": resources.num_cpus,
        "num_gpus": resources.num_gpus,
        "resources": resources.custom,
        "runtime_env": {"env_vars": ENVIRONMENT},
    }
    if resources.memory_bytes:
        actor["memory"] = resources.memory_bytes
    return {
        "name": Replica.__name__,
        "ray_actor_options": actor,
        "max_ongoing_requests": settings.max_ongoing_requests,
        "max_queued_requests": settings.max_queued_requests,
        "max_surge_percent": settings.surge_percent,
        "graceful_shutdown_timeout_s": DRAIN_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": HEALTH_PERIOD_SECONDS,
        "logging_config": {"enable_access_log": False, "log_level": "WARNING"},
        **_count_replicas(settings),
    }


def _count_replicas(settings: RaySettings) -> dict[str, Any]:
    """A fixed number of replicas, or the autoscaler's options."""
    if settings.replicas.min == settings.replicas.max:
        return {"num_replicas": settings.replicas.max}
    return {
        "autoscaling_config": {
            "min_replicas": settings.replicas.min,
            "max_replicas": settings.replicas.max,
            "look_back_period_s": settings.look_back_seconds,
            "metrics_interval_s": min(MAX_PUSH_SECONDS, settings.look_back_seconds / 3),
            "upscale_delay_s": settings.upscale_delay_seconds,
            "downscale_delay_s": settings.downscale_delay_seconds,
            "policy": {"policy_function": f"{Policy.__module__}:{Policy.__name__}", "policy_kwargs": options_of(settings)},
        }
    }


def build(arguments: dict[str, str]) -> Any:
    """The application builder for a RayService: `import_path: gateway.cluster.application:build`.

    Its arguments are `config`, a file that the nodes can read, and `model`, the name of a row in it. Raises ConfigurationError.
    """
    config = load(arguments.get("config"))
    rows = {row.name: row for row in config.models}
    if arguments.get("model") not in rows:
        raise ConfigurationError(f"no model is named '{arguments.get('model')}'; there are {', '.join(rows)}")
    return application_of(rows[arguments["model"]], config)
