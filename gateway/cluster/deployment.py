"""Deploys a row to a cluster, gets its status, and deletes it. Blocks; for the command line.

A command connects only while it works, and never starts a cluster if there is none.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from gateway.cluster.application import application_of, settings_of
from gateway.cluster.connection import join, replicas_of
from gateway.cluster.replica import NAMESPACE, vectors_key
from gateway.config import Config, ModelRow
from gateway.errors import OperatorError

LOOK_SECONDS = 0.5
RUNNING, FAILED = "RUNNING", ("DEPLOY_FAILED", "UNHEALTHY")
FAILED_LOOKS = 3  # in a row: Ray Serve may call an application unhealthy for a moment
NOT_DEPLOYED = "not deployed"


@dataclass(frozen=True, slots=True)
class ApplicationStatus:
    """The status of a row's application: `state` and `message` as Ray Serve gives them, replicas counted by state."""

    model: str
    application: str
    state: str
    replicas: dict[str, int] = field(default_factory=dict)
    message: str = ""


@contextmanager
def join_cluster(address: str) -> Iterator[None]:
    """Connects this process to the cluster inside the block. Raises OperatorError if ray is not installed or no cluster answers."""
    if find_spec("ray") is None:
        raise OperatorError("a cluster needs the package ray: pip install 'ray[serve]'")
    import ray  # noqa: PLC0415 - ray is imported where it is used

    if reason := join(address):
        raise OperatorError(reason)
    from ray import serve  # noqa: F401, PLC0415 - its import sets up the logger whose level is raised here

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        yield
    finally:
        ray.shutdown()


def deploy(row: ModelRow, config: Config, *, has_new_vectors: bool) -> None:
    """Starts the row's application, or updates it replica by replica. Returns before it runs: see `wait_for_application`.

    Unless `has_new_vectors`, replicas refuse to start if their vectors differ from those of the application so far.
    """
    from ray import serve  # noqa: PLC0415 - as above
    from ray.experimental import internal_kv  # noqa: PLC0415

    name = settings_of(row).application_of(row.name)
    application = application_of(row, config)
    serve.start(proxy_location="Disabled")  # clients come through the gateway
    if has_new_vectors or name not in serve.status().applications:
        internal_kv._internal_kv_del(vectors_key(name), namespace=NAMESPACE)  # noqa: SLF001 - its only form
    serve.run_many(
        [serve.RunTarget(application, name=name, route_prefix=None)],
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )


def wait_for_application(row: ModelRow, *, timeout_seconds: float) -> Iterator[ApplicationStatus]:
    """Yields the status whenever it changes, until the application runs. Raises OperatorError if it fails or takes too long."""
    deadline = time.monotonic() + timeout_seconds
    told: ApplicationStatus | None = None
    num_failed = 0
    while True:
        now = status(row)
        if now != told:
            yield now
            told = now
        if now.state == RUNNING:
            return
        num_failed = num_failed + 1 if now.state in FAILED else 0
        if num_failed >= FAILED_LOOKS:
            raise OperatorError(f"{row.name} cannot be deployed: {now.message or now.state}")
        if time.monotonic() > deadline:
            raise OperatorError(f"{row.name} does not run yet after {timeout_seconds:g} seconds: {now.message or now.state}")
        time.sleep(LOOK_SECONDS)


def status(row: ModelRow) -> ApplicationStatus:
    from ray import serve  # noqa: PLC0415 - as above

    name = settings_of(row).application_of(row.name)
    found: Any = serve.status().applications.get(name)
    if found is None:
        return ApplicationStatus(row.name, name, NOT_DEPLOYED)
    messages = [found.message, *(deployment.message for deployment in found.deployments.values())]
    return ApplicationStatus(row.name, name, found.status.value, replicas_of(found), next(filter(None, messages), ""))


def delete(row: ModelRow) -> bool:
    """Deletes the row's application; requests in flight finish first. Returns whether there was one."""
    from ray import serve  # noqa: PLC0415 - as above
    from ray.experimental import internal_kv  # noqa: PLC0415

    now = status(row)
    if now.state == NOT_DEPLOYED:
        return False
    serve.delete(now.application)
    internal_kv._internal_kv_del(vectors_key(now.application), namespace=NAMESPACE)  # noqa: SLF001 - its only form
    return True
