"""Access control is always there: open to everybody, or with keys, and nobody need ask which."""

import pytest
from structlog.testing import capture_logs

from gateway.access.access_control import build_access_control
from gateway.access.keys.key import new_key
from gateway.access.keys.policy import policy_of
from gateway.config import AuthSettings, StoreSettings, UsageSettings, listen_addresses
from gateway.errors import ConfigurationError, InsufficientQuota, InvalidKey, MissingKey
from gateway.metrics import Metrics

USED = {"model": "m", "num_inputs": 1, "num_tokens": 8, "num_cached_tokens": 0}


def present_none():
    raise MissingKey


@pytest.fixture
def build(tmp_path):
    def build(mode):
        return build_access_control(AuthSettings(mode=mode), UsageSettings(), StoreSettings(data_dir=str(tmp_path)), Metrics())

    return build


async def test_open_access_never_asks_for_a_key(build):
    access = build("none")
    await access.start()
    caller = await access.authenticate(present_none)
    access.refuse_spent(caller)
    access.record(caller, **USED)
    access.refuse_spent(caller)
    assert caller.public_id == "anonymous"
    assert not access.needs_key
    assert not caller.is_admin
    assert access.parts == access.shortfalls == {}
    assert list(access.databases) == []
    with pytest.raises(ConfigurationError, match=r"auth\.mode is 'none'"):
        access.require_keys()
    await access.close()


async def test_access_with_keys_knows_its_callers_and_counts_what_they_use(build):
    access = build("keys")
    await access.start()
    text, key = new_key()
    access.require_keys().store.add(key, policy_of({"token_budget": 8}), by="cli:somebody")
    caller = await access.authenticate(lambda: text)
    access.refuse_spent(caller)
    access.record(caller, **USED)
    with pytest.raises(InsufficientQuota):
        access.refuse_spent(caller)
    with pytest.raises(MissingKey):
        await access.authenticate(present_none)
    with pytest.raises(InvalidKey):
        await access.authenticate(lambda: "sk-gw-x")
    assert access.needs_key
    assert all(is_well() for is_well in access.parts.values())
    assert [reason() for reason in access.shortfalls.values()] == [None]
    assert len(list(access.databases)) == 1
    await access.close()
    ended = {name for name, is_well in access.parts.items() if not is_well()}
    assert ended == {"keys", "usage", "key-gauges"}  # the snapshot on disk is kept, and has no task while nothing is written


@pytest.mark.parametrize(("mode", "host", "expected"), [
    ("none", "0.0.0.0", ["authentication_is_off"]), ("none", "::", ["authentication_is_off"]), ("none", "127.0.0.1", []),
    ("none", "::1", []), ("none", "localhost", []), ("none", "unix:/run/g.sock", []),
    ("none", "::1,unix:g,10.0.0.1", ["authentication_is_off"]),
    ("keys", "127.0.0.1", ["no_api_keys"]), ("keys", "0.0.0.0", ["no_api_keys"]),
])  # fmt: skip
async def test_the_operator_is_warned_of_what_lets_everybody_or_nobody_in(build, mode, host, expected):
    access = build(mode)
    await access.start()
    with capture_logs() as lines:
        access.warn(addresses=listen_addresses(host))
    assert [line["event"] for line in lines] == expected
    await access.close()
