"""One visit to the page: what a person does on it, and what is noticed meanwhile."""

import json
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Page, Request, Route, expect

from compat_tests.texts import MODEL

FIVE = "Five sentences"


@dataclass
class Visit:
    """`asked` are the addresses of all requests, `complaints` what the browser said about scripts, styles and policy."""

    page: Page
    origin: str
    key: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", self.notice)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type in {"error", "warning"} else None)

    def notice(self, request: Request) -> None:
        self.asked.append(request.url)

    def open(self, view: str = "try") -> "Visit":
        self.page.goto(f"{self.origin}/#{view}")
        return self

    def enter(self, key: str | None = None) -> "Visit":
        """Types the key and waits until the server has accepted it."""
        self.try_key(self.key if key is None else key)
        expect(self.page.locator("#key-card")).to_be_hidden()
        return self

    def try_key(self, key: str) -> None:
        self.page.get_by_label("API key", exact=True).fill(key)
        self.page.get_by_role("button", name="Use this key").click()

    def compare(self, *texts: str) -> "Visit":
        """Pastes texts, one a line, and waits for the picture."""
        self.page.get_by_label("Texts", exact=True).fill("\n".join(texts))
        self.go("Compare these texts")
        expect(self.page.locator(".heat")).to_be_visible()
        return self

    def sample(self, name: str) -> "Visit":
        self.page.get_by_role("button", name=name, exact=True).click()
        return self

    def go(self, words: str) -> None:
        self.page.get_by_role("button", name=words).click()

    def fact(self, name: str) -> str:
        """What the summary says under a name."""
        return self.page.locator(".facts div", has=self.page.get_by_text(name, exact=True)).locator("dd").inner_text()

    def trouble(self, kind: str) -> Any:
        """The message of a kind of trouble, once it is shown."""
        found = self.page.locator(f".trouble[data-kind='{kind}']")
        expect(found).to_be_visible()
        return found

    def answered(self, path: str, status: int, body: str, **headers: str) -> None:
        """From now on the browser gets this in the place of the gateway's answer, until `unanswered`."""

        def fulfil(route: Route) -> None:
            said = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
            route.fulfill(status=status, body=body, headers=said)

        self.page.route(f"{self.origin}{path}", fulfil)

    def with_rerankers(self, *names: str) -> None:
        """From now on the browser is told of MiniLM and of rerankers with these names."""
        kinds = {MODEL: "embedder", **dict.fromkeys(names, "reranker")}
        model = {"object": "model", "created": 1, "owned_by": "x", "state": "ready"}
        data = [{**model, "id": name, "kind": kind} for name, kind in kinds.items()]
        self.answered("/v1/models", 200, json.dumps({"data": data}))

    def unanswered(self, path: str) -> None:
        self.page.unroute(f"{self.origin}{path}")
