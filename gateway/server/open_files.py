"""The limit on open files (RLIMIT_NOFILE), which connections count against. Raised if allowed; a warning says if it is too low."""

import contextlib
import sys

from gateway.log import get_logger
from gateway.server.connection_table import PROBE_CONNECTIONS

OTHER_FILES = 512  # models, the store, Redis, upstreams (64 connections each by default), and 256 lingering connections

log = get_logger()


def affordable_connections(max_connections: int) -> int:
    """Lowers `max_connections` if the limit on open files is too low for it, with a warning.

    A process may raise its soft limit to the hard one. The soft one is often 1,024, for programs that use select(); the gateway
    doesn't. Beyond the limit no connection is accepted at all, not even a probe's. Returns the number of connections that fit.
    """
    if sys.platform == "win32":
        return max_connections  # Windows has no such limit
    needed = max_connections + PROBE_CONNECTIONS + OTHER_FILES
    limit = _raised_limit(needed)
    if limit >= needed:
        return max_connections
    affordable = max(1, limit - PROBE_CONNECTIONS - OTHER_FILES)
    log.warning(
        "open_files_limit", limit=limit, needed=needed, max_connections=affordable,
        hint="raise the limit on open files (ulimit -n, LimitNOFILE), or lower server.max_connections",
    )  # fmt: skip
    return affordable


def _raised_limit(needed: int) -> int:
    """Raises the soft limit to `needed`, as far as the hard limit allows. Returns the limit on open files."""
    import resource  # noqa: PLC0415 - not available on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return sys.maxsize if soft == unlimited else soft
    most = needed if hard == unlimited else min(needed, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has a limit beside the hard one
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        log.info("open_files_raised", before=soft, limit=most)
        return most
    return soft
