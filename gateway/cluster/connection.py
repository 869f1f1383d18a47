"""Joins a Ray cluster, or fails fast with a reason: Ray itself waits for minutes if nothing listens."""

import contextlib
import socket
from collections import Counter
from typing import Any

PROBE_SECONDS = 3.0


def join(address: str) -> str:
    """Connects this process to the cluster at `address`. Blocks. Returns why that is impossible, or ""."""
    import ray  # noqa: PLC0415 - ray is imported where it is used

    try:
        place = find_address(address)
        if reason := unreachable(place):
            return f"the cluster at {place} cannot be reached: {reason}"
        ray.init(place, namespace="serve", log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # noqa: BLE001 - Ray raises many kinds, and all mean the same here
        first = (str(error).strip().splitlines() or [""])[0]
        return f"the cluster at {address} cannot be joined: {type(error).__name__}: {first[:300]}"
    return ""


def find_address(address: str) -> str:
    """The cluster's HOST:PORT. Raises ConnectionError if "auto" finds no node on this host."""
    from ray._private.services import canonicalize_bootstrap_address  # noqa: PLC0415 - as above

    place = canonicalize_bootstrap_address(address)
    if place is None:
        raise ConnectionError("this host has no Ray node: ray start --address=HOST:PORT --num-cpus=0")
    return str(place)


def unreachable(place: str) -> str:
    host, _, port = place.rpartition(":")
    try:
        with contextlib.closing(socket.create_connection((host.strip("[]"), int(port)), PROBE_SECONDS)):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def replicas_of(application: Any) -> dict[str, int]:
    """The number of replicas of an ApplicationStatusOverview in each state. Annotated as an enum, a state is in fact text."""
    found: Counter[str] = Counter()
    for deployment in application.deployments.values():
        found.update({getattr(state, "value", state): count for state, count in deployment.replica_states.items()})
    return dict(found)
