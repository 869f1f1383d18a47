"""The limit on open files, which connections count against: raised where that is allowed, and said where it is too low."""

import contextlib
import sys

from gateway.log import get_logger
from gateway.server.connection_table import PROBE_CONNECTIONS

OTHER_FILES = 512  # models, the store, Redis, other servers (64 connections each by default), and 256 that linger

log = get_logger()


def affordable_connections(max_connections: int) -> int:
    """So many as are asked for, or fewer where the limit on open files is too low for them, which a warning says.

    A process may raise its soft limit to the hard one. The soft one is often 1,024, for the sake of programs that use select(),
    which this one does not. Beyond the limit no connection is accepted at all, not a probe's either.
    """
    if sys.platform == "win32":
        return max_connections  # which has no such limit
    needed = max_connections + PROBE_CONNECTIONS + OTHER_FILES
    limit = raised_limit(needed)
    if limit >= needed:
        return max_connections
    affordable = max(1, limit - PROBE_CONNECTIONS - OTHER_FILES)
    log.warning(
        "open_files_limit", limit=limit, needed=needed, max_connections=affordable,
        hint="raise the limit on open files (ulimit -n, LimitNOFILE), or lower server.max_connections",
    )  # fmt: skip
    return affordable


def raised_limit(needed: int) -> int:
    """The limit on open files, made at least `needed` where the hard limit allows it."""
    import resource  # noqa: PLC0415 - not to be had on Windows

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
