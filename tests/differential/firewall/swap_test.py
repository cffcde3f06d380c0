"""A ruleset is swapped under load: every packet is judged wholly by one of the two."""

import threading
import time

import pytest

import wire
from traffic import Hosts
from twins import SluiceTwin, frame_of

SWAPS, BURST = 120, 64


def ruleset(dscp, ttl, window, filler):
    """Each hook writes its part of the same answer; chains and maps are in its way."""
    more = "\n".join(f"    ip daddr 192.0.2.{n % 250} udp dport {n + 1} counter drop"
                     for n in range(filler))
    return f"""
table ip swap {{
  map ttls {{ type inet_service : verdict; elements = {{ 53 : goto ttl }}; }}
  chain ttl {{
    ip ttl set {ttl} counter
  }}
  chain pre {{
    type filter hook prerouting priority 0; policy accept;
{more}
    ip dscp set {dscp} counter
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
{more}
    udp dport vmap @ttls
  }}
  chain post {{
    type filter hook postrouting priority 0; policy accept;
    udp sport set {window} counter
  }}
}}
"""


def answer(frame):
    """What the three hooks have written."""
    packet = frame[14:]
    return packet[1] >> 2, packet[8], wire.port(packet, wire.layout(packet).source_port)


@pytest.mark.parametrize("filler", [0, 500], ids=["small", "500 rules more"])
def test_no_packet_meets_a_mixture(twins, filler):
    rulesets = [ruleset(n, 10 * n, 1000 * n, filler) for n in (1, 2)]
    expected = {(n, 10 * n, 1000 * n) for n in (1, 2)}
    twins.load(rulesets[0])
    hosts = Hosts(twins, 4)
    frame = frame_of("left", wire.udp(hosts.left(1), hosts.wan(1), 4000, 53, bytes(20)))
    side = twins.other
    sent = 0
    for swap in range(SWAPS):
        for _ in range(BURST // 2):
            side.send("left", frame)
        side.nft.load(rulesets[(swap + 1) % 2])
        for _ in range(BURST // 2):
            side.send("left", frame)
        sent += BURST
        while side.receive(0):
            pass
        if swap % 8 == 7:  # now and then until it is taken over, so that either is seen
            twins.wait_for_rules()
            side.send("left", frame)
            sent += 1
            settle(twins, side)
    settle(twins, side)
    deadline = time.monotonic() + 5
    while len(side.frames) < sent and time.monotonic() < deadline:
        side.receive(0.1)
    answers = [answer(found) for link, found in side.frames if link == "wan"]
    mixtures = set(answers) - expected
    assert not mixtures, f"packets judged by two rulesets: {mixtures}"
    assert set(answers) == expected
    assert len(answers) == sent, "packets were lost"


def settle(twins, side):
    numbers = twins.sentinels_to(side)
    assert side.wait_for(numbers), f"the {side.name} side no longer answers"


def early(port, later):
    """Port 53 is dropped: by a rule that XDP carries out, or by one in the way of the workers."""
    return f"""
table inet early {{
  chain raw {{
    type filter hook prerouting priority -300; policy accept;
    udp dport {port} counter drop
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    udp dport {later} counter drop
  }}
}}
"""


def test_xdp_and_workers_change_together(twins):
    """XDP's rules and the workers' are of one ruleset: between two rulesets that both drop a port, one
    in XDP and the other behind it, no packet finds the gap."""
    rulesets = [early(53, 9), early(9, 53)]
    twins.load(rulesets[0])
    hosts = Hosts(twins, 4)
    frame = frame_of("left", wire.udp(hosts.left(1), hosts.wan(1), 4000, 53, bytes(20)))
    side = twins.other
    stop = threading.Event()

    def load():
        while not stop.is_set():
            side.send("left", frame)

    sender = threading.Thread(target=load)
    sender.start()
    try:
        for swap in range(SWAPS // 4):
            side.nft.load(rulesets[(swap + 1) % 2])
            twins.wait_for_rules()
            while side.receive(0):
                pass
    finally:
        stop.set()
        sender.join()
    settle(twins, side)
    passed = [link for link, found in side.frames if link == "wan" and found[23] == wire.UDP]
    assert not passed, f"{len(passed)} packets were judged by two rulesets"
    if isinstance(side, SluiceTwin):  # either has been in force
        assert side.metric("sluice_xdp_packets_total", reason="early_rule") > 0
        assert side.metric("sluice_dropped_packets_total", reason="firewall_rule") > 0


def test_a_change_that_fails_changes_nothing(twins):
    twins.load(ruleset(1, 10, 1000, 3))
    hosts = Hosts(twins, 4)
    for number in range(3):
        with pytest.raises(Exception, match="Error"):
            twins.other.nft.run("flush ruleset\n" + ruleset(2, 20, 2000, 3) +
                                "add rule ip nowhere nothing counter\n")
        twins.send("left", wire.udp(hosts.left(1), hosts.wan(1), 4000 + number, 53, bytes(20)))
    twins.check("a refused change")


def test_single_changes_take_effect(twins):
    """Rules and elements come and go one by one, and both sides keep in step."""
    twins.load("""
table inet t {
  set blocked { type ipv4_addr; }
  set nets { type ipv4_addr; flags interval; }
  map ports { type inet_service : verdict; }
  chain f {
    type filter hook forward priority 0; policy accept;
    ip saddr @blocked counter drop
    ip saddr @nets counter drop
    udp dport vmap @ports
    counter comment "last"
  }
}
""")
    hosts = Hosts(twins, 4)
    one, two = hosts.left(1), hosts.left(2)

    def probe():
        for client in (one, two):
            for port in (53, 54):
                twins.send("left", wire.udp(client, hosts.wan(1), 4000, port, b"probe"))
        twins.finish()

    probe()
    for commands in (
            f"add element inet t blocked {{ {one} }}", f"add element inet t nets {{ {two}/31 }}",
            f"delete element inet t blocked {{ {one} }}", f"delete element inet t nets {{ {two}/31 }}",
            "add element inet t ports { 53 : drop }", "delete element inet t ports { 53 : drop }",
            "insert rule inet t f udp dport 54 counter drop",
            "add chain inet t late { type filter hook forward priority 50; policy drop; }",
            "add rule inet t late udp dport 53 counter accept",
            "chain inet t late { policy accept; }", "flush chain inet t f",
            "add rule inet t f udp dport 53 counter reject", "delete table inet t"):
        twins.nft(commands)
        probe()
    twins.check("single changes")


def test_ten_thousand_elements_and_one_more(twins):
    """Elements are added and removed while packets ask for them."""
    twins.load("table ip t {\n set s { type ipv4_addr; flags interval; auto-merge; }\n chain f {\n "
               "type filter hook forward priority 0; policy accept;\n ip saddr @s counter drop\n "
               "counter\n}\n}\n")
    base = [f"100.{64 + n // 15625}.{n // 125 % 125 * 2}.{n % 125 * 2}" for n in range(10000)]
    twins.nft("add element ip t s { " + ", ".join(base) + " }")
    hosts = Hosts(twins, 4)
    for source in (base[0], base[9999], "100.64.0.1", hosts.left(1)):
        twins.send("left", wire.udp(source, hosts.wan(1), 4000, 53, b"x"))
    for step in range(20):
        word = "delete" if step % 2 else "add"
        twins.nft(f"{word} element ip t s {{ {hosts.left(1)} }}")
        twins.send("left", wire.udp(hosts.left(1), hosts.wan(1), 4000, 53, b"x"))
        twins.send("left", wire.udp(base[step * 100], hosts.wan(1), 4000, 53, b"x"))
        twins.finish()
    twins.check("elements")


