"""Rules that XDP carries out before a packet reaches a worker: a netdev ingress chain and a raw
prerouting chain on the way from h1 to h2. With `early_filter: off` the workers run the same rules,
and everything but the place must come out alike.
"""

import re
import socket

import pytest

from rig import Rig, Sluice, inside, wait_for

RULES = """
flush ruleset
table netdev early {
  set denied { type ipv4_addr; flags interval; elements = { 10.77.1.64/26 }; }
  chain from_h1 {
    type filter hook ingress device "h1" priority 0; policy accept;
    ip saddr @denied counter drop comment "denied"
    ip protocol udp udp dport 7000 counter comment "seen"
  }
}
table inet raw {
  set denied6 { type ipv6_addr; flags interval; elements = { fd77:0:0:1:6::/80 }; }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    ip6 saddr @denied6 meta l4proto udp counter drop comment "denied6"
    udp dport 7002 meter flood { ip saddr limit rate over 1/minute burst 5 packets } \
      counter drop comment "flood"
  }
}
table inet filter {
  chain forward {
    type filter hook forward priority 0; policy accept;
    ip daddr 10.77.2.2 meta l4proto udp counter comment "forwarded"
    ip6 daddr fd77:0:0:2::2 meta l4proto udp counter comment "forwarded6"
  }
}
"""
GOOD = "10.77.1.2"
DENIED = "10.77.1.66"
ADDED = "10.77.1.33"
DENIED6 = "fd77:0:0:1:6::2"
TARGET = {4: "10.77.2.2", 6: "fd77:0:0:2::2"}


@pytest.fixture(params=[("auto", 1), ("off", 1), ("on", 2)],
                ids=["xdp", "off", "xdp-two-workers"])
def router(request):
    choice, workers = request.param
    with Rig(queues=workers) as rig:
        rig.batch("h1", f"address add {DENIED}/24 dev eth0", f"address add {ADDED}/24 dev eth0",
                  f"address add {DENIED6}/64 dev eth0 nodad preferred_lft 0")
        nft(rig, RULES)
        with Sluice(rig, early_filter=choice, workers={"count": workers}) as sluice:
            rig.ping("h1", TARGET[4])
            rig.ping("h1", TARGET[6])
            early = choice != "off"
            wait_for(lambda: rule(sluice, "denied")["where"] == ("xdp" if early else "worker"),
                     lambda: f"{rule(sluice, 'denied')}\n{sluice.log()}")
            yield rig, sluice, early
            sluice.check_accounts()


def nft(rig, commands):
    rig.run("router", "nft", "-f", rig.write("rules.nft", commands))


def rule(sluice, comment):
    """The line of `show rules` with this comment."""
    return next((line for line in sluice.show("rules")["lines"]
                 if f'comment "{comment}"' in line["text"] and line["handle"]), None)


def counted(sluice, comment):
    return rule(sluice, comment)["packets"]


def send(rig, source, port, count=100):
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with inside(rig.namespace("h1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            for _ in range(count):
                sender.sendto(b"x" * 100, (TARGET[6 if ":" in source else 4], port))


class Sent:
    """Datagrams from h1: what each counter makes of them."""

    def __init__(self, rig, sluice, source, port, count=100):
        before = self.read(sluice)
        send(rig, source, port, count)
        def settled():
            now = self.read(sluice)
            self.grown = {key: now[key] - before[key] for key in now}
            return self.grown["seen_all"] >= count
        wait_for(settled, lambda: f"{self.grown}")

    @staticmethod
    def read(sluice):
        metrics = sluice.metrics()
        values = {name: counted(sluice, name)
                  for name in ("denied", "denied6", "flood", "forwarded", "forwarded6")}
        values["xdp"] = metrics.get("sluice_xdp_packets_total", interface="h1", action="drop")
        values["worker"] = metrics.get("sluice_received_packets_total", interface="h1")
        values["seen_all"] = sum(values[name] for name in
                                 ("denied", "denied6", "flood", "forwarded", "forwarded6"))
        return values

    def check(self, early, dropped=0, **rules):
        for name, count in rules.items():
            assert self.grown[name] == count, self.grown
        if early:
            assert self.grown["xdp"] == dropped, self.grown
            # Neighbours ask each other now and then.
            assert self.grown["worker"] < sum(rules.values()) - dropped + 20, self.grown
        else:
            assert self.grown["xdp"] == 0, self.grown


def test_rules_in_xdp_drop_and_count(router):
    rig, sluice, early = router
    place = "xdp" if early else "worker"
    for name in ("denied", "seen", "denied6", "flood"):
        assert rule(sluice, name)["where"] == place, (name, sluice.show("rules"))
    assert rule(sluice, "forwarded")["where"] == "worker"
    assert sluice.get("sluice_ruleset_rules", where="xdp") == (4 if early else 0)
    assert sluice.show("status")["firewall"]["in_xdp"] == (4 if early else 0)

    Sent(rig, sluice, DENIED, 7000).check(early, dropped=100, denied=100, forwarded=0)
    assert rule(sluice, "denied")["bytes"] == 100 * 128
    Sent(rig, sluice, DENIED6, 7000).check(early, dropped=100, denied6=100, forwarded6=0)
    assert rule(sluice, "denied6")["bytes"] == 100 * 148
    Sent(rig, sluice, GOOD, 7000).check(early, denied=0, forwarded=100)
    assert counted(sluice, "seen") == 100
    # Five of each sender fit the bucket.
    Sent(rig, sluice, GOOD, 7002).check(early, dropped=95, flood=95, forwarded=5)
    Sent(rig, sluice, ADDED, 7002).check(early, dropped=95, flood=95, forwarded=5)


def test_changes_take_effect_and_keep_counts(router):
    rig, sluice, early = router
    Sent(rig, sluice, ADDED, 7001).check(early, denied=0, forwarded=100)
    nft(rig, "add element netdev early denied { 10.77.1.33 }")
    def is_denied():
        before = counted(sluice, "denied")
        send(rig, ADDED, 7001, count=1)
        return counted(sluice, "denied") > before
    wait_for(is_denied, sluice.log)
    before = counted(sluice, "denied")
    Sent(rig, sluice, ADDED, 7001).check(early, dropped=100, denied=100, forwarded=0)
    assert counted(sluice, "denied") == before + 100

    # The rules after one that XDP cannot run are the workers'. Counts stay.
    nft(rig, "insert rule netdev early from_h1 meta mark set 1")
    wait_for(lambda: rule(sluice, "denied")["where"] == "worker", sluice.log)
    assert counted(sluice, "denied") == before + 100
    Sent(rig, sluice, ADDED, 7001).check(False, denied=100, forwarded=0)
    assert counted(sluice, "denied") == before + 200

    listing = rig.run("router", "nft", "-a", "list", "chain", "netdev", "early", "from_h1").stdout
    for handle in re.findall(r"(?:mark set|@denied).*# handle (\d+)", listing):
        nft(rig, f"delete rule netdev early from_h1 handle {handle}")
    wait_for(lambda: rule(sluice, "denied") is None, sluice.log)
    def is_through():
        before = counted(sluice, "forwarded")
        send(rig, DENIED, 7001, count=1)
        return counted(sluice, "forwarded") > before
    wait_for(is_through, sluice.log)
    before = counted(sluice, "forwarded")
    send(rig, ADDED, 7001)
    wait_for(lambda: counted(sluice, "forwarded") >= before + 100, sluice.log)


def test_policy_and_accept_in_xdp(router):
    rig, sluice, early = router
    nft(rig, """
    table inet strict {
      chain prerouting {
        type filter hook prerouting priority -290; policy drop;
        udp dport { 7003, 7005 } counter accept comment "allowed"
        meta l4proto { icmp, icmpv6, tcp } accept
      }
    }
    """)
    place = "xdp" if early else "worker"
    wait_for(lambda: (rule(sluice, "allowed") or {}).get("where") == place, sluice.log)
    Sent(rig, sluice, GOOD, 7003).check(early, forwarded=100)
    assert counted(sluice, "allowed") == 100
    dropped = sluice.get("sluice_xdp_packets_total", interface="h1", action="drop")
    before = sluice.get("sluice_dropped_packets_total", interface="h1")
    send(rig, GOOD, 7004)
    if early:
        wait_for(lambda: sluice.get("sluice_xdp_packets_total", interface="h1", action="drop") ==
                 dropped + 100, sluice.log)
    else:
        wait_for(lambda: sluice.get("sluice_dropped_packets_total", interface="h1") >=
                 before + 100, sluice.log)


def test_an_interface_that_returns_gets_its_rules(router):
    rig, sluice, early = router
    Sent(rig, sluice, DENIED, 7001).check(early, dropped=100, denied=100)
    run = rig.run("router", "ip", "link", "delete", "h1")
    assert run.returncode == 0
    sluice.wait_interface("h1", "absent")
    # The kernel has taken the device's chain along with it.
    rig.add_pair("h1")
    rig.batch("h1", f"address add {DENIED}/24 dev eth0", f"address add {ADDED}/24 dev eth0",
              f"address add {DENIED6}/64 dev eth0 nodad preferred_lft 0")
    sluice.wait_interface("h1")
    nft(rig, RULES)
    place = "xdp" if early else "worker"
    wait_for(lambda: (rule(sluice, "denied") or {}).get("where") == place, sluice.log)
    rig.ping("h1", TARGET[4])
    Sent(rig, sluice, DENIED, 7001).check(early, dropped=100, denied=100, forwarded=0)
    Sent(rig, sluice, GOOD, 7002).check(early, dropped=95, flood=95, forwarded=5)


def test_explain_says_what_xdp_does(router):
    _, sluice, early = router
    done = sluice.cli("explain", "--in", "h1", "ip", "saddr", DENIED, "ip", "daddr", TARGET[4],
                      "udp", "dport", "7000")
    assert done.returncode == 0, done.stdout
    assert "drop" in done.stdout, done.stdout
    assert ("in XDP" in done.stdout) == early, done.stdout
