"""`pytest -p gateway.tests.fast`: the tests that start no process and load no network, for `make test-fast`.

Nothing is marked by hand. Files about commands and processes are not collected, nor are those that take long; of the
others, whatever test starts a process or imports a library of networks is skipped, the moment it does.
"""

import re
import sys
from pathlib import Path

import pytest
from hypothesis import settings

PROCESSES = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}
NETWORKS = {"torch", "transformers", "sentence_transformers", "openvino", "ray"}  # some ten seconds each, before the first test
STARTS = re.compile(r"sys\.executable|^import subprocess$|^from gateway\.tests\.(cli|cluster)\.", flags=re.MULTILINE)
ROOMS_OF_PROCESSES = {"api", "cli", "cluster"}  # where a process that cannot be started is told of, or started again

# Three fifths of the time in a fifth of the tests: what simulates hours of load, waits until a limit of time has passed, or speaks
# over real sockets.
LONG = {
    "access/keys/test_store_silence.py",
    "access/limits/test_gcra.py",
    "api/openapi/test_document.py",
    "api/test_admin.py",
    "api/test_app_stopping.py",
    "api/test_app_traces.py",
    "api/test_embeddings_faults.py",
    "api/test_embeddings_leaving.py",
    "api/test_embeddings_mixed_faults.py",
    "bulk/test_csv_dialect.py",
    "capacity/test_plan.py",
    "engine/test_device.py",
    "reload/test_swap.py",
    "reload/test_watcher.py",
    "server/test_connection_table_full.py",
    "server/test_lingering_close.py",
    "server/test_listening.py",
    "server/test_log_sampler.py",
    "server/test_protocol.py",
    "upstream/services/test_services.py",
    "upstream/test_bisection.py",
    "upstream/test_dispatch_trouble.py",
    "upstream/test_embedder_starting.py",
    "upstream/test_measure.py",
    "upstream/test_tcp_silence.py",
    "upstream/test_upstream_gateway.py",
    "upstream/test_watch.py",
    "upstream/test_watch_changes.py",
}
TESTS = Path(__file__).parent

settings.register_profile("fast", max_examples=20)  # of 100


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    if collection_path.name == "processes" or collection_path in {TESTS / name for name in LONG}:
        return True
    if collection_path.parent.name in ROOMS_OF_PROCESSES and collection_path.suffix == ".py":
        return STARTS.search(collection_path.read_text(encoding="utf-8")) is not None or None
    return None


def pytest_sessionstart(session: pytest.Session) -> None:
    """xdist's controller starts its workers, and runs no test itself."""
    settings.load_profile("fast")
    if not getattr(session.config.option, "numprocesses", None) or hasattr(session.config, "workerinput"):
        sys.addaudithook(skip_what_is_slow)


def skip_what_is_slow(event: str, arguments: tuple[object, ...]) -> None:
    """An audit hook (PEP 578): what it raises goes up through the call that was to start or import something."""
    if event in PROCESSES:
        pytest.skip("starts a process", allow_module_level=True)
    if event == "import" and arguments[0] in NETWORKS:
        pytest.skip(f"imports {arguments[0]}", allow_module_level=True)
