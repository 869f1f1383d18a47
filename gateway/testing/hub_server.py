"""A stand-in for the Hugging Face hub, in a thread: the routes by which huggingface_hub fetches a model, and no others.

HF_ENDPOINT is read when huggingface_hub is imported, so its clients are processes of their own.
"""

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

HEADERS = {"gated": "GatedRepo", "missing": "RepoNotFound", "revision": "RevisionNotFound", "entry": "EntryNotFound"}


@dataclass
class HubServer:
    """Serves `folders`, by hub id, each at one commit. `gated` are ids that ask for `token`. `log` has all requests' paths.

    The first download of a file in `broken` ends after that many bytes.
    """

    folders: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    token: str = "hf_of_the_tests"
    commit: str = "c0ffee" + "0" * 34
    broken: dict[str, int] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    def __enter__(self) -> "HubServer":
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def environ(self, home: Path) -> dict[str, str]:
        """For a process that takes this for the hub, with its cache in `home`."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}


class _Handler(BaseHTTPRequestHandler):
    server_hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - its name in the base class
        self.server_hub.log.append(f"{self.command} {self.path} {self.headers.get('Range', '')}".strip())

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        parts = parts[2:] if is_api else parts
        name, rest = "/".join(parts[:2]), parts[2:]
        hub = self.server_hub
        if name not in hub.folders:
            return self.refuse(404, "missing")
        if name in hub.gated and self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self.refuse(401 if self.headers.get("Authorization") is None else 403, "gated")
        revision = rest[1] if len(rest) > 1 else "main"
        if revision not in {"main", hub.commit}:
            return self.refuse(404, "revision")
        if is_api and rest[:1] == ["tree"]:
            return self.answer(json.dumps([self.entry(hub.folders[name], path) for path in files_of(hub.folders[name])]).encode())
        if is_api:
            return self.answer(json.dumps({"id": name, "sha": hub.commit, "siblings": []}).encode())
        path = hub.folders[name].joinpath(*rest[2:])
        return self.send_file(path) if path.is_file() else self.refuse(404, "entry")

    def entry(self, folder: Path, path: Path) -> dict[str, Any]:
        return {"type": "file", "path": path.relative_to(folder).as_posix(), "size": path.stat().st_size, "oid": etag_of(path)}

    def send_file(self, path: Path) -> None:
        content = path.read_bytes()
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers = {"ETag": f'"{etag_of(path)}"', "X-Repo-Commit": self.server_hub.commit, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cut = self.server_hub.broken.pop(path.name, None) if self.command == "GET" else None
        self.answer(content[start:], status=206 if start else 200, headers=headers, cut=cut)

    def answer(self, body: bytes, *, status: int = 200, headers: dict[str, str] | None = None, cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def refuse(self, status: int, code: str) -> None:
        self.answer(b"", status=status, headers={"X-Error-Code": HEADERS[code], "X-Error-Message": code})


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def etag_of(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
