"""The page's files: who may have them, under which policy, what they weigh and what they name."""

import re

import pytest

from gateway.api.page.site import MEDIA_TYPES, STATIC, document
from gateway.config import AuthSettings, DoorSettings, PageSettings, ServerSettings
from gateway.tests.api.conftest import client_of

MAX_BYTES = 150_000
NAMES = sorted(path.name for path in STATIC.iterdir())
SCRIPTS = [name for name in NAMES if name.endswith(".js")]


def text_of(name):
    return (STATIC / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "index.html"])
async def test_every_file_is_served_as_what_it_is_without_a_key(stranger, name):
    reply = await stranger.get(f"/page/{name}")
    assert reply.status_code == 200
    assert reply.content == (STATIC / name).read_bytes()
    assert reply.headers["content-type"].startswith(MEDIA_TYPES["." + name.rpartition(".")[2]])
    assert reply.headers["x-content-type-options"] == "nosniff"


async def test_the_page_needs_no_key_and_forbids_all_that_it_does_not_need(stranger):
    reply = await stranger.get("/")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';")
    assert "unsafe" not in policy
    assert "http" not in policy


async def test_a_browser_that_has_the_page_already_is_told_so(stranger):
    tag = (await stranger.get("/")).headers["etag"]
    again = await stranger.get("/", headers={"if-none-match": tag})
    assert (again.status_code, again.content) == (304, b"")
    assert (await stranger.get("/page/page.js", headers={"if-none-match": tag})).status_code == 200


async def test_head_is_answered_as_get_without_a_body(stranger):
    reply = await stranger.head("/")
    assert (reply.status_code, reply.content) == (200, b"")


NO_DOORS = DoorSettings(tei=False, ollama=False)  # TEI's clients post to "/", and Ollama's ask it where there is no page


async def test_nothing_can_be_sent_to_the_page(make):
    gateway = make(doors=NO_DOORS)
    async with client_of(gateway) as client:
        reply = await client.post("/", json={})
        assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_allowed")
        assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
    await gateway.close()


@pytest.mark.parametrize("name", ["index.html", "nothing.js", "..%2fsite.py", "%2e%2e", "__init__.py"])
async def test_no_other_file_is_served(stranger, name):
    assert (await stranger.get(f"/page/{name}")).status_code in {404, 401}


async def test_the_page_can_be_turned_off(make):
    gateway = make(page=PageSettings(enabled=False), doors=NO_DOORS)
    async with client_of(gateway) as client:
        for path in ("/", "/page/page.js", "/page/live"):
            reply = await client.get(path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "unknown_url")
    await gateway.close()


async def test_the_page_is_told_what_it_must_know_before_it_asks(make):
    gateway = make(auth=AuthSettings(mode="none"), page=PageSettings(live="off"), server=ServerSettings(docs=False))
    async with client_of(gateway) as client:
        html = (await client.get("/")).text
    assert re.search(
        r'<html data-auth="none" data-live="off" data-docs="off" data-batches="off" data-version="[^"]+" lang="en">', html
    )
    await gateway.close()


def test_what_is_told_to_the_page_cannot_become_markup():
    assert b'data-live="&quot;&gt;&lt;script&gt;"' in document(live='"><script>')


def test_all_of_it_weighs_less_than_a_photograph():
    assert sum(len((STATIC / name).read_bytes()) for name in NAMES) < MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_another_server(name):
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"'`)]*", text_of(name)))
    own = {"http://www.w3.org/2000/svg", "http://127.0.0.1:9200", "//postgres:postgres@127.0.0.1:5432/postgres"}
    assert {address for address in addresses if not any(known in address for known in own)} == set()


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_makes_markup_or_code_of_text(name):
    sinks = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|setAttribute\(\"style\"|srcdoc"
    assert re.findall(sinks, text_of(name)) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_script_keeps_anything(name):
    assert (
        re.findall(r"localStorage|sessionStorage|indexedDB|document\.cookie|caches\.|pushState|replaceState", text_of(name)) == []
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_import_leads_to_a_file_that_is_loaded_at_once(name):
    imported = re.findall(r"from \"\./([\w.]+)\"", text_of(name))
    assert set(imported) <= set(SCRIPTS)
    assert all(f'href="page/{other}"' in text_of("index.html") for other in imported)


def test_no_markup_carries_script_or_style():
    html = text_of("index.html")
    assert re.findall(r"\son\w+=|\sstyle=|<style|<script(?![^>]+src=)", html) == []
