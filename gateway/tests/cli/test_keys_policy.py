"""`gateway keys`: what a key may do, said as people say it; and what was done to it by whom."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from gateway.access.database import Database
from gateway.access.usage.period import hour_of
from gateway.access.usage.store import UsageStore, UsageTotals
from gateway.config import StoreSettings
from gateway.tests.cli.conftest import Command, told
from gateway.tests.cli.test_keys import KEY, created, listed

EVERYTHING = (
    "--name", "search", "--models", "all-*, org/m", "--rpm", "600", "--rpm-burst", "50", "--tpm", "100000", "--tpm-burst", "9000",
    "--concurrency", "8", "--budget", "1000000/day", "--expires", "30d", "--admin", "--metadata", "team=a=b", "--metadata", "cost=",
)  # fmt: skip


def made(gateway: Command, *arguments: str) -> dict:
    ended = gateway("keys", "create", "--json", *arguments)
    assert (ended.code, ended.err) == (0, "")
    return json.loads(ended.out)


def shown(gateway: Command, public_id: str) -> dict:
    return json.loads(gateway("keys", "show", public_id, "--json").out)


def test_every_term_can_be_given_when_a_key_is_made(gateway: Command):
    key = made(gateway, *EVERYTHING)
    assert KEY.fullmatch(key["key"])[1] == key["id"]
    expires_in = datetime.fromisoformat(key.pop("expires_at")) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < expires_in <= timedelta(days=30)
    wanted = {
        "name": "search", "models": ["all-*", "org/m"], "requests_per_minute": 600, "requests_burst": 50,
        "tokens_per_minute": 100_000, "tokens_burst": 9000, "max_concurrent_requests": 8, "token_budget": 1_000_000,
        "budget_period": "day", "is_admin": True, "metadata": {"team": "a=b", "cost": ""}, "state": "active",
    }  # fmt: skip
    assert {name: key[name] for name in wanted} == wanted
    (row,) = gateway("keys", "list").out.splitlines()[1:]
    assert "600 rpm, 100000 tpm, 8 at once, 1000000 tokens/day, models all-*,org/m, admin" in row


def test_limits_are_changed_one_by_one_and_taken_away_by_none(gateway: Command):
    public_id = made(gateway, *EVERYTHING)["id"]
    ended = gateway(
        "keys", "limit", public_id, "--rpm-burst", "none", "--rpm", "60", "--budget", "none", "--no-admin", "--models", "*"
    )
    assert ended.out.startswith(f"{public_id}: 60 rpm, 100000 tpm, 8 at once; expires 20")
    gateway("keys", "limit", public_id, "--expires", "never", "--metadata", "none", "--tpm-burst", "none", "--tpm", "none")
    found = shown(gateway, public_id)
    assert (found["requests_per_minute"], found["tokens_per_minute"], found["token_budget"]) == (60, None, None)
    assert (found["expires_at"], found["metadata"], found["name"], found["is_admin"]) == (None, {}, "search", False)


def test_a_key_is_rotated_and_its_new_secret_shown_once(gateway: Command):
    old, public_id = created(gateway, "--rpm", "60")
    ended = gateway("keys", "rotate", public_id, "--grace", "12h")
    (new,) = {match[0] for match in KEY.finditer(ended.out)}
    assert new != old
    assert KEY.fullmatch(new)[1] == public_id
    until = datetime.fromisoformat(re.search(r"The old one works until (\S+)\.", ended.out)[1])
    assert timedelta(hours=11) < until - datetime.now(UTC) <= timedelta(hours=12)
    assert shown(gateway, public_id)["requests_per_minute"] == 60
    assert "The old one stops within 2 seconds." in gateway("keys", "rotate", public_id, "--grace", "0s").out
    assert json.loads(gateway("keys", "rotate", public_id, "--json").out)["old_secret_until"] is not None
    assert new.rpartition("-")[2] not in gateway("keys", "show", public_id).out + gateway("keys", "audit").out


def test_the_history_of_a_key_names_who_and_what(gateway: Command):
    public_id = made(gateway, "--name", "n", "--rpm", "5")["id"]
    gateway("keys", "limit", public_id, "--tpm", "9")
    gateway("keys", "revoke", public_id)
    events = shown(gateway, public_id)["history"]
    assert [event["action"] for event in events] == ["revoke", "limit", "create"]
    assert {event["actor"] for event in events} == {events[0]["actor"]}
    assert re.fullmatch(r"cli:\S+", events[0]["actor"])
    text = gateway("keys", "show", public_id).out
    assert re.search(r"^state +revoked$", text, flags=re.MULTILINE)
    assert re.search(rf"cli:\S+ +limit +{public_id} +tokens_per_minute=9$", text, flags=re.MULTILINE)
    other = made(gateway)["id"]
    assert [event["key"] for event in json.loads(gateway("keys", "audit", "--json").out)] == [other] + [public_id] * 3
    assert [event["key"] for event in json.loads(gateway("keys", "audit", other, "--json").out)] == [other]
    assert len(gateway("keys", "audit", "--limit", "2").out.splitlines()) == 3


def test_usage_is_summed_for_people_and_for_programs(gateway: Command, tmp_path: Path):
    assert gateway("keys", "usage").out.splitlines()[1].split() == ["total", "0", "0", "0", "0"]
    database = Database(StoreSettings(data_dir=str(tmp_path / "data")))
    now = datetime.now(UTC).timestamp()
    rows = [UsageTotals("a", "m", hour_of(now), 1, 2, 30, 4), UsageTotals("a", "m", hour_of(now - 86400 * 10), 1, 1, 1, 1)]
    UsageStore(database).add([*rows, UsageTotals("b", "m", hour_of(now), 5, 5, 5, 5)])
    database.close()
    heading, *lines, total = gateway("keys", "usage").out.splitlines()
    assert heading.split() == ["PERIOD", "(UTC)", "KEY", "MODEL", "REQUESTS", "INPUTS", "TOKENS", "CACHED", "TOKENS"]
    assert [line.split()[1:] for line in lines] == [
        ["a", "m", "1", "1", "1", "1"],
        ["a", "m", "1", "2", "30", "4"],
        ["b", "m", *"5555"],
    ]
    assert total.split() == ["total", "7", "8", "36", "10"]
    [row] = json.loads(gateway("keys", "usage", "a", "--by", "hour", "--since", "7d", "--json").out)
    assert row == {
        "key": "a", "model": "m", "period": hour_of(now), "requests": 1, "inputs": 2, "tokens": 30, "cached_tokens": 4
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create", "--rpm", "0"], "--rpm: '0' is neither a number from 1 to 1000000000000 nor 'none'"),
        (["create", "--rpm", "many"], "--rpm: 'many' is neither"),
        (["create", "--rpm", "1" * 14], "--rpm: '11111111111111' is neither a number from 1 to 1000000000000 nor 'none'"),
        (["create", "--tpm-burst", "5"], "tokens_burst: there is no tokens_per_minute"),
        (["create", "--budget", "1000"], "--budget: '1000' is neither tokens a period"),
        (["create", "--budget", "5/week"], "--budget: '5/week' is neither"),
        (["create", "--expires", "soon"], "--expires: 'soon' is no duration"),
        (["create", "--expires", "0d"], "--expires: a key that ends after '0d' never works"),
        (["create", "--models", "a,,b"], "models: Expected str of length >= 1"),
        (["create", "--metadata", "team"], "--metadata: 'team' is no KEY=VALUE"),
        (["create", "--name", "\x1b[31m"], "printable characters only"),
        (["limit", "nobody"], "nothing to change was named"),
        (["limit", "nobody", "--rpm", "5"], "No key in force has the id `nobody`"),
        (["rotate", "nobody"], "No key in force has the id `nobody`"),
        (["rotate", "nobody", "--grace", "x"], "--grace: 'x' is no duration"),
        (["show", "nobody"], "No key in force has the id `nobody`"),
        (["usage", "--since", "x"], "--since: 'x' is no duration"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(gateway: Command, arguments: list[str], words: str):
    assert words in told(gateway("keys", *arguments))
    assert listed(gateway) == []


def test_a_database_url_with_a_password_is_never_shown(gateway: Command, tmp_path: Path):
    url = "postgresql://gateway:hidden-password@127.0.0.1:1/keys"
    (tmp_path / "some.toml").write_text(f'[store]\ndatabase_url = "{url}"')
    refused = told(gateway("config", "show", "--config", "some.toml"))
    assert refused.startswith("gateway: store: database_url holds a password: write")
    environ = {"GATEWAY__STORE__DATABASE_URL": url}
    seen = gateway("config", "show", **environ)
    assert 'env = "GATEWAY__STORE__DATABASE_URL"' in seen.out
    away = told(gateway("keys", "list", **environ))
    assert re.search(r"the key database at 127\.0\.0\.1 cannot be used: .*[Cc]onnection refused", away)
    for text in (refused, seen.out, seen.err, away):
        assert "hidden-password" not in text
