"""Rulesets of the kinds that people really have (shapes/*.nft): they load, and do what they do."""

import os

import pytest

import compare
import wire
from addresses import ip4
from flows import BACK, Flows
from traffic import Hosts, addressed, mixed
from statements_test import blocks
from twins import SluiceTwin
from wire import ACK, SYN

SHAPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shapes")


METERS = "flood_meters.nft"


def load(twins, name):
    with open(os.path.join(SHAPES, name), encoding="utf-8") as file:
        text = file.read()
    # Comments hold braces too.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    twins.load(addressed(blocks("\n".join(lines) + "\n"), twins.round + 1, 4))
    return name


@pytest.fixture(params=sorted(os.listdir(SHAPES)))
def shape(request, twins):
    return load(twins, request.param)


def connect(flow):
    """As far as the router lets it."""
    flow.segment(SYN)
    flow.segment(SYN | ACK, BACK)
    flow.segment(ACK)
    flow.exchange(500)
    flow.finish()


def test_every_kind_of_traffic(twins, shape):
    for family in (4, 6):
        mixed(twins, family, odd="limit rate" not in twins.ruleset)
    twins.check(shape, compare.ANY_PORT)
    assert sum(1 for count in twins.kernel.counts().values() if count[0]) >= 3


def test_connections_from_inside_and_outside(twins, shape):
    flows = Flows(twins)
    for family in (4, 6):
        hosts = Hosts(twins, family)
        for client, server in ((hosts.left(1), hosts.wan(1)), (hosts.wan(50), hosts.left(9)),
                               (hosts.right(9), hosts.wan(2)), (hosts.wan(3), hosts.right(9)),
                               (hosts.left(2), hosts.right(9))):
            for port in (22, 80, 8080, 9):
                connect(flows.add("tcp", client, server, 4000 + port, port))
            for port in (53, 9999, 6005):
                flow = flows.add("udp", client, server, 4000 + port, port)
                flow.send()
                flow.reply()
                flow.send()
            ping = flows.add("icmp", client, server, 7)
            ping.send()
            ping.reply()
    if shape != METERS or not isinstance(twins.other, SluiceTwin):  # else see the next test
        to_the_router(twins, flows)
    twins.check(shape, compare.ANY_PORT)


def to_the_router(twins, flows):
    hosts = Hosts(twins, 4)
    for client, outside in ((hosts.wan(50), ip4("wan")), (hosts.left(1), ip4("left"))):
        for port in (22, 80, 8080, 443):
            connect(flows.add("tcp", client, outside, 5000 + port, port))
        flow = flows.add("udp", client, outside, 5000, 53)
        flow.send()
        flow.reply()


def test_meters_of_what_is_in_transit_and_of_what_is_local(twins):
    """One that both share fills in two places: what is forwarded counts in Sluice, what is local in the
    kernel (README, How it differs from the kernel)."""
    load(twins, METERS)  # three SYNs of each source
    hosts = Hosts(twins, 4)
    for destination in (hosts.wan(1), ip4("left"), hosts.wan(1)):
        for number in range(3):
            twins.send("left", wire.tcp(hosts.left(1), destination, 4000 + number, 80, SYN))
        twins.finish()
    apart = isinstance(twins.other, SluiceTwin)
    for side, answers in zip(twins.sides, (0, 3 if apart else 0)):
        passed = [link for link, frame in side.frames if frame[12:14] == b"\x08\0"]
        assert passed.count("wan") == 3 and passed.count("left") == answers, side.name


def test_many_new_connections_of_one_source(twins, shape):
    """Beyond every burst of the shapes."""
    flows = Flows(twins)
    for family in (4, 6):
        hosts = Hosts(twins, family)
        for number in range(45):
            flows.add("tcp", hosts.left(1), hosts.wan(1), 10000 + number, 80).segment(SYN)
            flows.add("udp", hosts.left(2), hosts.wan(1), 10000 + number, 53).send()
    twins.check(shape, compare.ANY_PORT)
