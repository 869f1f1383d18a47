"""What the unit tests replay is still what the clients send."""

import json

import pytest

from compat_tests.matrix.cells import CLIENTS, Client
from compat_tests.matrix.conftest import ProgramOf
from compat_tests.matrix.recording import FOLDER, file_of, recorded


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_recorded_request_is_what_the_client_sends(client: Client, program_of: ProgramOf) -> None:
    kept, sent = json.loads(file_of(client).read_text(encoding="utf-8")), recorded(client, program_of(client))
    for name in ("method", "path", "body", "texts"):  # headers may differ with the version of Node or curl
        assert sent[name] == kept[name]


def test_every_recorded_request_is_of_a_client() -> None:
    assert {file.name for file in FOLDER.iterdir()} == {file_of(client).name for client in CLIENTS}
