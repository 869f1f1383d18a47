"""`gateway batches`: what an operator sees of all keys' batches."""

import json

import pytest
from click.testing import CliRunner

from gateway.access.database import Database
from gateway.access.keys.audit import history
from gateway.batches.job import BatchJob, LineError
from gateway.batches.store import BatchStore
from gateway.cli.batches import batches
from gateway.config import StoreSettings
from gateway.errors import OperatorError


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("GATEWAY_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    database = Database(StoreSettings(data_dir=str(tmp_path)))
    database.open()
    yield BatchStore(database, clock=lambda: 1_790_000_000.0)
    database.close()


def job(number, **more):
    facts = {
        "id": f"batch_{number}", "owner": "abc", "endpoint": "/v1/embeddings", "input_file_id": "file-x",
        "completion_window": "24h",
        "status": "validating", "created_at": 1_790_000_000 + number, "expires_at": 1_790_086_400, **more,
    }  # fmt: skip
    return BatchJob(**facts)


def run(*arguments):
    return CliRunner().invoke(batches, arguments, catch_exceptions=False)


def test_batches_are_listed_the_newest_first(store):
    store.add(job(1, total=10, completed=4, model="m"), max_unfinished=9)
    store.add(job(2, owner="other"), max_unfinished=9)
    lines = run("list").output.splitlines()
    assert lines[0].split()[:3] == ["ID", "KEY", "STATUS"]
    assert [line.split()[0] for line in lines[1:]] == ["batch_2", "batch_1"]
    assert [each["id"] for each in json.loads(run("list", "--json", "--key", "abc").output)] == ["batch_1"]


def test_a_batch_is_shown_with_why_it_failed(store):
    store.add(job(1, status="failed", errors=(LineError("invalid_url", "It is wrong.", "url", 7),)), max_unfinished=9)
    shown = run("show", "batch_1").output
    assert "line 7: invalid_url: It is wrong." in shown
    assert json.loads(run("show", "batch_1", "--json").output)["status"] == "failed"


def test_a_cancellation_is_in_the_audit_trail(store):
    store.add(job(1), max_unfinished=9)
    assert run("cancel", "batch_1").output == "batch_1 is cancelling\n"
    cancelled, created = history(store.database, limit=2)
    assert (created.action, created.actor) == ("batch_create", "key:abc")
    assert cancelled.action == "batch_cancel"
    assert cancelled.actor.startswith("cli:")
    with pytest.raises(OperatorError, match="No batch found"):
        run("cancel", "batch_unknown")
