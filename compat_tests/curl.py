"""curl, run as a program: what any HTTP client may send, and exactly what comes back."""

import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_SECONDS = 90
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")
EMBEDDINGS = "/v1/embeddings"


@dataclass(frozen=True, slots=True)
class Answer:
    """`headers` are those of the last response, names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Curl:
    """Speaks with one origin, as `key` unless a call says otherwise."""

    origin: str
    key: str

    def get(self, path: str, *options: str, headers: Mapping[str, str] | None = None) -> Answer:
        """`headers` None sends the key as `Authorization: Bearer`; else they are all there are."""
        return self.run(path, *options, headers=self.authorization if headers is None else headers)

    def post(
        self, body: object, *options: str, path: str = EMBEDDINGS, headers: Mapping[str, str] | None = None, json_type: bool = True
    ) -> Answer:
        """`body` goes as it is if it is bytes, else as JSON. `headers` as for `get`; the Content-Type comes by itself."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = self.authorization if headers is None else headers
        if json_type:
            headers = {"Content-Type": "application/json", **headers}
        return self.run(path, "--data-binary", "@-", *options, headers=headers, sent=sent)

    @property
    def authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def run(self, path: str, *options: str, headers: Mapping[str, str], sent: bytes = b"") -> Answer:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            done = subprocess.run(
                self.command(path, *options, headers=headers, folder=folder),
                input=sent,
                capture_output=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"curl: {done.stderr.decode()}"
            return answer_in(folder)

    def command(self, path: str, *options: str, headers: Mapping[str, str], folder: Path) -> Sequence[str | Path]:
        return [
            "curl", "--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", str(MAX_SECONDS), "--path-as-is",
            "--dump-header", folder / "headers", "--output", folder / "body",
            *(part for header in headers.items() for part in ("--header", ": ".join(header))),
            *options, f"{self.origin}{path}",
        ]  # fmt: skip


def answer_in(folder: Path) -> Answer:
    """What curl wrote; a `100 Continue` stands before the headers that count."""
    blocks = (folder / "headers").read_bytes().decode("latin-1").strip().split("\r\n\r\n")
    first, *lines = blocks[-1].splitlines()
    fields = (line.partition(":") for line in lines)
    headers = {field.strip().lower(): value.strip() for field, _, value in fields}
    body = folder / "body"
    return Answer(int(first.split()[1]), headers, body.read_bytes() if body.exists() else b"")


def assert_error(
    answer: Answer,
    status: int,
    code: str | None,
    *holds: str,
    param: str | None = None,
    error_type: str = "invalid_request_error",
) -> None:
    """One row of the contract's table: the four keys, always, the words that clients match, and the headers of every response."""
    assert answer.status == status, answer.body
    error = answer.json()["error"]
    assert answer.json() == {"error": {"message": error["message"], "type": error_type, "param": param, "code": code}}
    for words in holds:
        assert words in error["message"]
    assert answer.headers["content-type"].startswith("application/json")
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])
    assert answer.headers["openai-version"] == "2020-10-01"
    assert "openai-model" not in answer.headers
