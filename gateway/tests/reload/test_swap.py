"""One configuration for another: whole or not at all, and without a request noticing."""

import asyncio

import pytest

from gateway.tests.reload.conftest import ROW, until

OTHER = '[[models]]\nname = "other"\nbackend = "versioned"\n'
NEWER = f"{ROW}version = 2\n"


async def test_the_next_request_is_answered_by_the_new_configuration(started):
    async with started() as running:
        assert (await running.post()).status_code == 200
        running.write(OTHER)
        await running.reload()
        assert (await running.post(model="other")).status_code == 200
        assert (await running.post(model="m")).status_code == 404
        assert running.results() == {"loaded": 1, "unchanged": 0, "refused": 0}


async def test_a_request_under_way_finishes_on_the_old_one_and_its_embedder_is_closed_only_then(started):
    async with started() as running:
        old = running.backend.built["m", 1]
        old.gate = asyncio.Event()
        under_way = asyncio.create_task(running.post())
        await old.is_waiting.wait()
        running.write(NEWER)
        await running.reload()
        after = await running.post()
        assert after.headers["x-gateway-fingerprint"].startswith("00000002")
        assert not old.is_closed
        old.gate.set()
        before = await under_way
        assert before.status_code == 200
        assert before.headers["x-gateway-fingerprint"].startswith("00000001")
        await running.retired()
        assert old.is_closed


async def test_an_embedder_two_generations_share_waits_for_the_requests_of_both(started):
    async with started() as running:
        old = running.backend.built["m", 1]
        running.write(f"{ROW}aliases = ['one']\n")
        await running.reload()
        old.gate = asyncio.Event()
        under_way = asyncio.create_task(running.post(model="one"))
        await old.is_waiting.wait()
        running.write(OTHER)
        await running.reload()
        await asyncio.sleep(0)
        assert not old.is_closed
        old.gate.set()
        assert (await under_way).status_code == 200
        await running.retired()
        assert old.is_closed


async def test_a_row_that_did_not_change_keeps_its_embedder_and_its_cached_vectors(started):
    async with started(ROW + OTHER) as running:
        embedder = running.backend.built["m", 1]
        await running.post("kept")
        running.write(f"[limits]\n{ROW}aliases = ['also']\n")
        await running.reload()
        await running.retired()
        reply = await running.post("kept", model="also")
        assert reply.headers["x-gateway-cache"] == "hits=1"
        assert running.backend.built["m", 1] is embedder
        assert (embedder.num_starts, embedder.is_closed) == (1, False)
        assert running.backend.built["other", 1].is_closed
        assert running.backend.num_built == 2


async def test_a_new_model_serves_before_the_old_one_goes(started):
    async with started() as running:
        running.backend.held["m"] = asyncio.Event()
        running.write(NEWER)
        reload = asyncio.create_task(running.reload())
        await until(lambda: ("m", 2) in running.backend.built and running.backend.built["m", 2].is_starting.is_set())
        reply = await running.post()
        assert reply.headers["x-gateway-fingerprint"].startswith("00000001")
        assert (await running.client.get("/readyz")).status_code == 200
        running.backend.held["m"].set()
        await reload
        assert (await running.post()).headers["x-gateway-fingerprint"].startswith("00000002")


WRONG = {
    "no TOML": ("[[models", "is not valid TOML"),
    "an unknown setting": (f"[server]\nprot = 1\n{ROW}", "unknown setting 'server.prot': did you mean 'port'?"),
    "a wrong type": (f"[server]\nmax_body_bytes = 'much'\n{ROW}", "server.max_body_bytes: expected int, got str"),
    "no model": ("models = []", "at least one model is needed"),
    "a setting of a row": (f"{ROW}verson = 2\n", "did you mean 'version'?"),
    "a name used twice": (ROW + ROW, "models[m]: the name 'm' is used twice"),
    "a name of another encoding": (f"{ROW}aliases = ['gpt-4o']\n", "o200k_base"),
    "a default that is not served": (f"[server]\ndefault_model = 'gone'\n{ROW}", "server.default_model: no model has the name"),
    "a pinned fingerprint": (f"{ROW}fingerprint = '{'0' * 24}.fake-float32'\n", "models[m].fingerprint: these are not the pinned"),
    "dimensions there are not": (f"{ROW}max_dimensions = 9\n", "models[m].max_dimensions: 9 cannot be"),
    "what needs a restart": (
        f"[server]\nhost = '0.0.0.0'\nport = 1\n{ROW}[store]\ndata_dir = 'elsewhere'\n[metrics]\nport = 2\n",
        "server.host, server.port, store.data_dir, metrics.port: cannot be changed while running",
    ),
}


@pytest.mark.parametrize(("text", "words"), WRONG.values(), ids=WRONG)
async def test_a_wrong_file_changes_nothing_and_one_line_names_what_is_wrong(started, text, words, capfd):
    async with started() as running:
        before, embedder = running.gateway.generation, running.backend.built["m", 1]
        capfd.readouterr()
        running.write(text)
        await running.reload()
        told = [line for line in "".join(capfd.readouterr()).splitlines() if "configuration_refused" in line]
        assert len(told) == 1
        assert words in told[0].replace("\\'", "'")
        assert running.gateway.generation is before
        assert running.results() == {"loaded": 0, "unchanged": 0, "refused": 1}
        assert (await running.post()).status_code == 200
        assert not embedder.is_closed


async def test_a_new_model_that_cannot_be_loaded_refuses_the_whole_configuration(started, capfd):
    async with started() as running:
        before = running.gateway.generation
        running.backend.fails["bad"] = "its weights are missing"
        fine = OTHER.replace("other", "fine")
        running.write(f"[server]\ndocs = false\n{ROW}aliases = ['new']\n{fine}{OTHER.replace('other', 'bad')}")
        await running.reload()
        assert "its weights are missing" in "".join(capfd.readouterr())
        assert running.gateway.generation is before
        assert (await running.post(model="new")).status_code == 404
        assert (await running.client.get("/docs")).status_code == 200
        await running.retired()
        assert running.backend.built["fine", 1].is_closed
        assert running.backend.built["bad", 1].is_closed
        assert not running.backend.built["m", 1].is_closed
        assert (await running.client.get("/readyz")).json() == {"status": "ready"}


async def test_settings_change_while_it_runs(started, tmp_path):
    (tmp_path / "keys").write_text("k" * 24)
    async with started() as running:
        assert (await running.post("x" * 500)).status_code == 200
        assert (await running.client.get("/docs")).status_code == 200
        assert (await running.client.get("/metrics")).status_code == 200
        running.write(
            f"[auth]\nkeys_file = '{tmp_path / 'keys'}'\n[server]\nmax_body_bytes = 400\nmax_concurrent_requests = 7\n"
            "drain_timeout_seconds = 3\ndefault_model = 'm'\ndocs = false\ncors_origins = ['https://a.org']\n"
            f"[cache]\nmax_bytes = 1000\n[metrics]\naccess = 'off'\n[log]\nlevel = 'error'\n{ROW}"
        )
        await running.reload()
        assert running.results()["loaded"] == 1
        assert (await running.post()).status_code == 401
        running.client.headers["authorization"] = f"Bearer {'k' * 24}"
        assert (await running.post("x" * 500)).status_code == 413
        reply = await running.client.post("/v1/embeddings", json={"input": "a"}, headers={"origin": "https://a.org"})
        assert reply.status_code == 200
        assert reply.headers["access-control-allow-origin"] == "https://a.org"
        assert (await running.client.get("/docs")).status_code == 404
        assert (await running.client.get("/metrics")).status_code == 404
        assert (running.gateway.admission.max_requests, running.gateway.cache.max_bytes) == (7, 1000)
        assert running.gateway.cache.num_bytes <= 1000
        assert running.backend.num_built == 1
        running.write(ROW)
        await running.reload()
        del running.client.headers["authorization"]
        assert (await running.post()).status_code == 200


async def test_limits_hold_for_what_is_built_anew(started):
    async with started() as running:
        assert (await running.post(["a b c d"])).status_code == 200
        running.write(f"[limits]\nmax_request_tokens = 3\n{ROW}")
        await running.reload()
        reply = await running.post(["a b c d"])
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "max_tokens_per_request")


async def test_the_same_file_again_changes_nothing(started):
    async with started() as running:
        before = running.gateway.generation
        running.write(f"# only a remark\n{ROW}")
        await running.reload()
        assert running.gateway.generation is before
        assert running.results() == {"loaded": 0, "unchanged": 1, "refused": 0}


async def test_a_file_that_is_gone_changes_nothing(started, capfd):
    async with started() as running:
        running.path.unlink()
        await running.reload()
        assert running.results()["refused"] == 1
        assert "cannot be read: No such file or directory" in "".join(capfd.readouterr())
        assert (await running.post()).status_code == 200
        running.write(OTHER)
        await running.reload()
        assert (await running.post(model="other")).status_code == 200


async def test_a_removed_model_is_no_longer_shown_as_loaded(started):
    async with started(ROW + OTHER) as running:
        assert "gateway_model_info{" in (text := (await running.client.get("/metrics")).text)
        assert 'model="other"' in text
        running.write(NEWER)
        await running.reload()
        await running.retired()
        rows = [line for line in (await running.client.get("/metrics")).text.splitlines() if line.startswith("gateway_model_info{")]
        assert len(rows) == 1
        assert 'fingerprint="00000002' in rows[0]


async def test_configurations_can_change_while_the_first_one_still_loads(started):
    async with started(is_loaded=False) as running:
        old = running.backend.built["m", 1]
        old.start_gate = asyncio.Event()
        loading = asyncio.create_task(running.gateway.load())
        await old.is_starting.wait()
        running.write(f"{ROW}aliases = ['also']\n")
        await running.reload()
        assert (await running.post(model="also")).json()["error"]["code"] == "model_loading"
        old.start_gate.set()
        await loading
        assert (await running.post(model="also")).status_code == 200
        assert old.num_starts == 1


async def test_a_gateway_that_stops_during_a_reload_closes_what_was_being_loaded(started):
    async with started() as running:
        running.backend.held["other"] = asyncio.Event()
        running.write(ROW + OTHER)
        reload = asyncio.create_task(running.reload())
        await until(lambda: ("other", 1) in running.backend.built and running.backend.built["other", 1].is_starting.is_set())
        reload.cancel()
        await asyncio.gather(reload, return_exceptions=True)
    assert running.backend.built["other", 1].is_closed
    assert running.backend.built["m", 1].is_closed
