"""What is said when the hub does not give a model, and where its token goes: to the hub alone."""

import json
import subprocess
import sys

import pytest

from gateway.testing.hub_server import HubServer
from gateway.testing.own_code import save_own_code

TOKEN = "hf_of_the_tests"
PROGRAM = """
import json, logging, os, sys
from gateway.engine.hub import fetch
from gateway.engine.settings import LocalSettings
from gateway.engine.weights import find_folder, local_folder
from gateway.config import convert
from gateway.errors import OperatorError
for row in json.loads(sys.argv[1]):
    print(row.pop("about"), end="\\t")
    try:
        settings = convert(row, LocalSettings, where="models[m]")
        folder = find_folder(settings)
        print(folder, local_folder(settings) == folder)
    except OperatorError as error:
        print(error, error.category)
"""
HUB = {"env": "HUB_TOKEN"}


@pytest.fixture(scope="module")
def said(small_model, tmp_path_factory):
    """What came of each row, in one process."""
    home = tmp_path_factory.mktemp("hub")
    own = save_own_code(tmp_path_factory.mktemp("own"))
    folders = {"some/model": small_model, "some/gated": small_model, "some/own": own}
    with HubServer(folders, gated={"some/gated"}, token=TOKEN, broken={"model.safetensors": 5000}) as hub:
        rows = [
            {"about": "gated", "source": "some/gated"},
            {"about": "wrong token", "source": "some/gated", "hub_token": {"env": "WRONG_TOKEN"}},
            {"about": "no variable", "source": "some/gated", "hub_token": {"env": "NO_SUCH"}},
            {"about": "token", "source": "some/gated", "hub_token": HUB},
            {"about": "absent", "source": "some/absent"},
            {"about": "no revision", "source": "some/model", "revision": "v9"},
            {"about": "broken once", "source": "some/model"},
            {"about": "by commit", "source": "some/model", "revision": hub.commit},
            {"about": "no id", "source": "a/b/c"},
            {"about": "untrusted", "source": "some/own"},
            {"about": "trusted", "source": "some/own", "trust_remote_code": True, "revision": hub.commit},
            {"about": "branch", "source": "some/own", "trust_remote_code": True, "revision": "main"},
            {"about": "no reference", "source": "some/own", "hub_token": TOKEN},
        ]
        environ = {"HUB_TOKEN": TOKEN, "WRONG_TOKEN": "hf_of_a_stranger", **hub.environ(home)}
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, json.dumps(rows)], env=environ, capture_output=True, text=True, timeout=100, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert TOKEN not in ended.stdout + ended.stderr.replace(json.dumps(rows), "")
    assert "hf_of_a_stranger" not in ended.stdout + ended.stderr
    assert len(ended.stdout.splitlines()) == len(rows), ended.stdout
    return dict(line.split("\t") for line in ended.stdout.splitlines())


@pytest.mark.parametrize(
    ("about", "words"),
    [
        (
            "gated",
            "it is gated, and the hub was given no token, or one that may not read it: accept its terms on http://127.0.0.1:",
        ),
        ("wrong token", "it is gated, and the hub was given a token that may not read it"),
        ("no variable", "the environment variable NO_SUCH, named as a secret, is not set"),
        ("absent", "the hub has no such model, or it is private"),
        ("no revision", "the hub has no revision 'v9' of it"),
        ("no id", "that is no id of a model on the hub"),
        ("untrusted", 'trust_remote_code = true in its row, with revision = "c0ffee'),
        ("branch", "trust_remote_code needs revision"),
        ("no reference", "models[m].hub_token: expected object"),
    ],
)
def test_why_it_was_not_fetched_is_one_true_line(about, words, said):
    assert words in said[about]


@pytest.mark.parametrize("about", ["token", "broken once", "by commit", "trusted"])
def test_it_is_fetched_and_then_on_this_machine(about, said):
    assert said[about].endswith(" True")
    assert "/snapshots/c0ffee" in said[about]
