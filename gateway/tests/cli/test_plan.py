"""`gateway cluster plan` as a user runs it."""

import json

from gateway.tests.cli.conftest import Command, told

LOAD = ("--texts-per-second", "5000", "--tokens", "41")


def test_a_plan_is_told_with_its_assumptions(gateway: Command):
    ended = gateway("cluster", "plan", *LOAD)
    assert (ended.code, ended.err) == (0, "")
    for words in (
        "replicas ",
        "nodes ",
        "headroom ",
        "p50, p99 ",
        "memory ",
        "5,000 texts a second of 41 tokens",
        "16,000 tokens a second",
    ):
        assert words in ended.out


def test_programs_get_json_and_a_simulation_that_agrees(gateway: Command):
    ended = gateway("cluster", "plan", *LOAD, "--simulate", "--json")
    found = json.loads(ended.out)
    assert found["load"]["texts_per_second"] == 5000
    for name, suffix in (("all_nodes", ""), ("after_losses", "_after_losses")):
        for percent in ("p50", "p99"):
            predicted = 1000 * found["plan"][f"{percent}_seconds{suffix}"]
            assert 0.65 < predicted / found["simulated_ms"][name][percent] < 1.6


def test_what_cannot_be_planned_is_one_line(gateway: Command):
    assert "no replica fits on a node" in told(gateway("cluster", "plan", *LOAD, "--node-cores", "1"))
    assert "a text that never waits takes" in told(gateway("cluster", "plan", *LOAD, "--p99-ms", "1"))
