"""uvicorn promises nothing of these names: each that this room uses is listed here, with the reason for it.

A name that uvicorn no longer has fails here before it fails a connection. One more that is used must be added, with a reason.
"""

import ast
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import uvicorn
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
ROOM = ROOT / "gateway" / "server"
UVICORN = Path(uvicorn.__file__).parent
# The file of uvicorn, and the class in it.
CLASSES = {
    "Protocol": ("protocols/http/httptools_impl.py", "HttpToolsProtocol"),
    "Cycle": ("protocols/http/httptools_impl.py", "RequestResponseCycle"),
    "Flow": ("protocols/http/flow_control.py", "FlowControl"),
    "Server": ("server.py", "Server"),
    "Config": ("config.py", "Config"),
}
# What our code calls an instance of each. In the classes that derive from uvicorn's, that is also `self`.
CALLED = {"Cycle": {"cycle"}, "Flow": {"flow"}, "Config": {"config"}, "Server": {"server"}, "Protocol": {"reader"}}
DERIVED = {"HTTPProtocol": "Protocol", "Server": "Server"}
IMPORTED = {
    "STATUS_LINE": "a refusal is written by us, as no application saw the request",
    "HttpToolsProtocol": "limits in time and bytes exist only around the parser's events, and uvicorn has no hooks for them",
}
PRIVATE = {
    "Protocol": {
        "app": "the application of the next request, which is put behind an Expectation where its client waits for 100 Continue",
        "client": "the peer's address, by which connections are counted",
        "config": "has the loaded application",
        "connection_lost": "a connection leaves the table, and its timers end",
        "connection_made": "a connection enters the table, and its transport is wrapped",
        "cycle": "the latest request: whether it is answered",
        "data_received": "bytes are counted, and the time that a head may take begins",
        "expect_100_continue": "HTTP/1.0 knows no such answer",
        "flow": "reading stops once a connection is to end",
        "headers": "the head is fed again where a client offers another protocol",
        "loop": "timers",
        "on_body": "bytes of bodies are counted apart from what frames them",
        "on_headers_complete": "a request takes its place in the table before the application sees it",
        "on_message_begin": "a connection that was idle for long is no longer the longest idle one",
        "on_message_complete": "is passed over where the head is fed again",
        "on_response_complete": "a connection waits again",
        "parser": "one that reads heads which offer another protocol",
        "pause_writing": "a client that does not read is noticed",
        "pipeline": "requests that wait behind one another: their client may still be sending",
        "resume_writing": "a client has read",
        "scope": "the request whose head is being read",
        "send_400_response": "uvicorn's is plain text, ours is the error that clients know",
        "transport": "writes, closes and aborts",
        "url": "the head is fed again where a client offers another protocol",
    },
    "Cycle": {
        "body": "whether anything of it came before the answer",
        "keep_alive": "is turned off where the connection must end",
        "more_body": "whether the request is here whole",
        "response_complete": "whether it is answered",
        "response_started": "in the middle of a reply nothing else can be said",
        "scope": "whose head is here",
    },
    "Flow": {"pause_reading": "nothing more is read from a connection that ends after its reply"},
    "Server": {
        "capture_signals": "another process may get the signals",
        "config": "the time for a graceful end is what is left of ours; and what it makes a protocol of",
        "force_exit": "a second signal ends at once",
        "handle_exit": "a stop has two steps, and exit code 0",
        "lifespan": "its state is part of each connection's",
        "main_loop": "the first step serves on while /readyz says no",
        "on_tick": "renews the Date header while it drains",
        "serve": "the loop and the limit of open files are known from then on",
        "servers": "listening ends before the last requests do",
        "should_exit": "begins the stop",
        "server_state": "each connection counts its requests there",
        "shutdown": "the port closes first, then who is connected is told",
        "startup": "several processes accept from one socket, each its part",
        "started": "`gateway serve --open` waits for it",
    },
    "Config": {
        "http_protocol_class": "what a connection that another part accepts is given to",
        "loaded_app": "the application",
        "timeout_graceful_shutdown": "what is left of our time for it",
    },
}
MESSAGES = {  # of its log, which tells of each stranger: left out, as we tell of the first
    "Invalid HTTP request": "protocols/http/httptools_impl.py",
    "Unsupported upgrade": "protocols/http/httptools_impl.py",
    "No supported WebSocket": "protocols/http/httptools_impl.py",
}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def names_of(kind: str) -> set[str]:
    """The methods of uvicorn's class, and the attributes that it gives itself."""
    file, name = CLASSES[kind]
    [found] = [node for node in tree_of(UVICORN / file).body if isinstance(node, ast.ClassDef) and node.name == name]
    methods = {node.name for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    own = [node for node in ast.walk(found) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    return (methods | {node.attr for node in own if isinstance(node.value, ast.Name) and node.value.id == "self"}) - {"__init__"}


def uses_of(tree: ast.Module) -> set[tuple[str, str]]:
    """(kind, name) of every attribute that our code takes of uvicorn's objects, or gives them, or overrides."""
    called = {word: kind for kind, words in CALLED.items() for word in words}
    found = {
        (kind, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and (kind := called.get(last_word(node.value)))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name in DERIVED:
            kind = DERIVED[node.name]
            attributes = [each for each in ast.walk(node) if isinstance(each, ast.Attribute)]
            found |= {(kind, each.attr) for each in attributes if last_word(each.value) in {"self", "super", "each", "slowest"}}
            found |= {(kind, each.name) for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    return found


def last_word(node: ast.expr) -> str:
    """`self.cycle` is a cycle, and so is `cycle`; `super()` is what it is of."""
    if isinstance(node, ast.Call):
        return last_word(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


SOURCES = [*sorted(ROOM.glob("*.py")), ROOT / "gateway" / "cli" / "browser.py"]


@pytest.mark.parametrize("kind", PRIVATE)
def test_uvicorn_has_every_name_that_is_listed(kind):
    assert PRIVATE[kind].keys() - names_of(kind) == set()


@pytest.mark.parametrize("kind", PRIVATE)
def test_every_name_that_is_used_is_listed_and_no_other(kind):
    used = {name for path in SOURCES for found, name in uses_of(tree_of(path)) if found == kind}
    assert used & names_of(kind) == set(PRIVATE[kind])


def test_what_is_imported_from_its_depths_is_listed():
    imports = [node for path in SOURCES for node in ast.walk(tree_of(path)) if isinstance(node, ast.ImportFrom)]
    names = {each.name for node in imports if (node.module or "").startswith("uvicorn.") for each in node.names}
    assert names == set(IMPORTED)


def test_the_lines_of_its_log_that_are_left_out_are_there():
    for words, file in MESSAGES.items():
        assert words in (UVICORN / file).read_text(encoding="utf-8")
    source = (ROOM / "server.py").read_text(encoding="utf-8")
    [listed] = re.findall(r"startswith\(\(([^)]*)\)\)", source)
    assert set(re.findall(r'"([^"]+)"', listed)) == set(MESSAGES)


def test_a_version_that_nobody_has_tried_is_not_installed():
    """The newest that is allowed is the one that the tests run with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [spec] = [found.specifier for text in project["dependencies"] if (found := Requirement(text)).name == "uvicorn"]
    [pinned] = re.findall(
        r"^uvicorn==(\S+)$", (ROOT / "deploy" / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    major, minor = (int(part) for part in pinned.split(".")[:2])
    assert version("uvicorn") in spec
    assert pinned in spec
    assert f"{major}.{minor + 1}.0" not in spec
