"""A server's structured code is told to operators and clients; its words, our secrets and clients' texts are told to nobody."""

import base64

import pytest
import structlog.testing

from gateway.errors import GatewayError, Unembeddable
from gateway.metrics import Metrics
from gateway.testing import upstream_server as standin
from gateway.testing.upstream_server import Said
from gateway.tests.upstream.conftest import embedded, over
from gateway.upstream.error_body import read_error
from gateway.upstream.secret_filter import SecretFilter

KEY = "Vq7-secret_key.1234"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"error": {"message": "no", "code": "model_not_found", "type": "invalid_request_error"}}', "model_not_found"),
        (b'{"error": {"message": "no", "code": null, "type": "invalid_request_error"}}', "invalid_request_error"),
        (b'{"error": {"message": "no", "code": 400, "type": "exceed_context_size_error"}}', "exceed_context_size_error"),
        (b'[{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]', "INVALID_ARGUMENT"),
        (
            b'[{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [{"reason": "API_KEY_INVALID"}]}}]',
            "API_KEY_INVALID",
        ),
        (
            b'[{"error": {"code": 400, "status": "INVALID_ARGUMENT", "details": [5, {"reason": "It is no code."}]}}]',
            "INVALID_ARGUMENT",
        ),
        (b'{"error": {"status": "INVALID_ARGUMENT", "details": {"reason": "X"}}}', "INVALID_ARGUMENT"),
        (b'{"code": 20015, "message": "no", "data": null}', "20015"),
        (b'{"code": "Arrearage", "message": "no"}', "Arrearage"),
        (b'{"error": "no", "error_type": "Validation"}', "Validation"),
        (b'{"detail": [{"type": "too_long", "loc": ["body"], "msg": "no"}]}', "too_long"),
        (b'{"error": {"code": "it said: a text"}}', None),
        (b'{"error": {"code": "%s"}}' % (b"x" * 65), None),
        (b'{"error": {"code": "x\\n"}}', None),
        ('{"error": {"code": "ungültig"}}'.encode(), None),
        (b'{"error": {"code": true, "type": ["a"]}}', None),
        (b'{"error": {"code": "400"}}', None),
        (b"<html>code</html>", None),
        (b"", None),
    ],
)
def test_a_code_is_of_letters_digits_and_a_few_marks(body, code):
    assert read_error(body, 400).code == code


def test_what_holds_a_secret_or_repeats_a_text_is_not_passed():
    secrets = SecretFilter()
    assert secrets.passed("anything") == "anything"
    secrets.add(KEY)
    secrets.add("user:pass-word")
    encoded = base64.b64encode(b"user:pass-word").decode().rstrip("=")
    for told in (KEY, KEY.upper(), f"bad.{KEY}.key", "pass-word", encoded):
        assert secrets.passed(told) is None, told
    assert secrets.passed("invalid_key", ["another text"]) == "invalid_key"
    assert secrets.passed("hunter2-rejected", ["hunter2"]) is None
    assert secrets.passed("abc", [" abc "]) is None
    assert secrets.passed(None) is None


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_the_code_is_in_the_log_and_in_the_message_and_in_no_label(status, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    metrics = Metrics()
    async with over("openai", standin.openai, key={"env": "UPSTREAM_KEY"}, retry=False, metrics=metrics) as (server, remote):
        server.answer = lambda _: standin.openai_error(status, f"free words, {KEY}", "Zorp-7.x")
        with structlog.testing.capture_logs() as logs, pytest.raises(GatewayError, match=r"\(Zorp-7\.x\)") as failed:
            await embedded(remote, "a text")
        [told] = [each for each in logs if each["event"] == "upstream_failed"]
        assert told["code"] == "Zorp-7.x"
        assert "free words" not in str(logs) + failed.value.message
        labels = {str(each.labels) for family in metrics.registry.collect() for each in family.samples}
        assert not any("Zorp" in each for each in labels)
        server.answer = lambda _: standin.openai_error(status, "no", f"bad.{KEY}")
        with structlog.testing.capture_logs() as logs, pytest.raises(GatewayError) as failed:
            await embedded(remote, "a text")
        assert KEY not in str(logs) + failed.value.message


async def test_of_an_input_that_is_to_blame_the_code_is_told_too():
    def answer(request):
        is_bad = "bad" in request.body["input"]
        return Said(500, {"error": {"code": "image_required", "message": "words"}}) if is_bad else standin.openai(request)

    async with over("openai", standin.openai) as (server, remote):
        server.answer = answer
        with pytest.raises(Unembeddable, match=r"'input\[1\]': the server .* the status 500 \(image_required\)"):
            await embedded(remote, "a", "bad", "b")


async def test_a_secret_of_another_row_is_a_secret_too(monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", KEY)
    shared = {}
    async with (
        over("openai", standin.openai, key={"env": "UPSTREAM_KEY"}, shared=shared),
        over("openai", standin.openai, name="n", shared=shared) as (server, other),
    ):
        server.answer = lambda _: standin.openai_error(401, "no", KEY)
        with pytest.raises(GatewayError) as failed:
            await embedded(other, "a")
        assert KEY not in failed.value.message
