"""Rulesets of the kinds that people really have (shapes/*.nft): they load, and do what they do."""

import os

import pytest

import compare
from addresses import ip4
from flows import BACK, Flows
from traffic import Hosts, addressed, mixed
from statements_test import blocks
from wire import ACK, SYN

SHAPES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "shapes")


@pytest.fixture(params=sorted(os.listdir(SHAPES)))
def shape(request, twins):
    with open(os.path.join(SHAPES, request.param), encoding="utf-8") as file:
        text = file.read()
    # Comments hold braces too.
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    twins.load(addressed(blocks("\n".join(lines) + "\n"), twins.round + 1, 4))
    return request.param


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


def test_connections_from_inside_and_outside(twins, shape, request):
    if "flood_meters.nft" in request.node.name and not os.environ.get("SLUICE_DIFF_AGAINST"):
        # A meter that packets in transit and packets for the router share fills in two places: what is
        # forwarded counts in Sluice, what is local in the kernel (README, Firewall and NAT). So they
        # are not mixed here.
        return
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
    hosts = Hosts(twins, 4)
    for client, outside in ((hosts.wan(50), ip4("wan")), (hosts.left(1), ip4("left"))):
        for port in (22, 80, 8080, 443):
            connect(flows.add("tcp", client, outside, 5000 + port, port))
        flow = flows.add("udp", client, outside, 5000, 53)
        flow.send()
        flow.reply()
    twins.check(shape, compare.ANY_PORT)


def test_many_new_connections_of_one_source(twins, shape):
    """Beyond every burst of the shapes."""
    flows = Flows(twins)
    for family in (4, 6):
        hosts = Hosts(twins, family)
        for number in range(45):
            flows.add("tcp", hosts.left(1), hosts.wan(1), 10000 + number, 80).segment(SYN)
            flows.add("udp", hosts.left(2), hosts.wan(1), 10000 + number, 53).send()
    twins.check(shape, compare.ANY_PORT)
