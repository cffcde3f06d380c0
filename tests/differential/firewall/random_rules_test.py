"""Random rulesets and random packets: verdicts, packets and counts as the kernel's.

A short run; long_run.py is the long one, and runs again what has failed."""

import generator
import play
import pytest
from long_run import report


def test_random_rulesets(twins, request):
    first = request.config.getoption("--seed")
    out = 0
    for seed in range(first, first + request.config.getoption("--rulesets")):
        scenario = generator.scenario(seed)
        found = play.run(twins, scenario)
        if found:
            pytest.fail(report(twins, scenario, seed, found), pytrace=False)
        out += len(twins.kernel.frames)
    assert out > 20 * request.config.getoption("--rulesets"), "hardly a packet came through"


def test_what_differs_is_found_and_made_small(twins):
    """The harness itself: one side gets another rule."""
    scenario = {"tables": [
        {"family": "ip", "name": "t0", "objects": [], "chains": [
            {"name": "every", "base": "type filter hook prerouting priority 0;",
             "rules": [["udp dport 53", "counter"], ["tcp dport 53", "counter", "accept"]]}]}],
        "flows": [{"protocol": kind, "family": 4, "in": "left", "source": 1, "out": "wan",
                   "destination": 2, "sport": 4000, "dport": 53} for kind in ("tcp", "udp")],
        "events": [{"flow": 0, "do": "segment", "flags": 2}, {"flow": 1, "do": "send", "size": 40},
                   {"flow": 1, "do": "send", "size": 50}]}
    run = twins.other.nft.run
    twins.other.nft.run = lambda commands: run(
        commands.replace("udp dport 53 counter", "udp dport 53 counter ip ttl set 77"))
    try:
        assert play.fails(twins, scenario, grace=0.2)
        small = play.shrink(twins, scenario)
    finally:
        del twins.other.nft.run
    assert [event["do"] for event in small["events"]] == ["send"]
    assert [flow["protocol"] for flow in small["flows"]] == ["udp"]
    assert [chain["rules"] for table in small["tables"] for chain in table["chains"]] == [
        [["udp dport 53", "counter"]]]
    assert play.run(twins, scenario) == []
