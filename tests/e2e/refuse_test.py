"""`unsupported: refuse`: a ruleset with a rule that Sluice cannot carry out is not taken as a whole.

What was in force before it stays; where nothing was, the kernel decides, never nobody.
"""

import re
import socket

import pytest

from rig import SLUICE, Rig, Sluice, answered, growing, inside, wait_for

ODD_RULE = "iifgroup 7 counter accept"
NAMED = "nft table inet odd, chain f, rule 2 (meta iifgroup): iifgroup 7 counter accept"


def chain(table, policy, *rules):
    """Commands for nft: the rules are the first of the table, with handles from 2 on."""
    return "; ".join((f"add table inet {table}",
                      f"add chain inet {table} f "
                      f"{{ type filter hook forward priority 0; policy {policy}; }}",
                      *(f"add rule inet {table} f {rule}" for rule in rules)))


def nft(rig, *commands):
    rig.run("router", "nft", "; ".join(commands))


def refused(sluice, yes=True):
    wait_for(lambda: sluice.get("sluice_ruleset_refused") == int(yes),
             lambda: f"refused: {not yes}\n{sluice.log()}")


def firewall(sluice):
    return sluice.show("status").get("firewall") or {}


def test_start_is_refused_once_and_the_kernel_goes_on():
    with Rig() as rig:
        nft(rig, chain("odd", "accept", ODD_RULE))
        before = rig.left_behind()
        sluice = Sluice(rig, unsupported="refuse").start(wait=False)
        assert sluice.process.wait(timeout=20) == 1, sluice.log()
        assert sluice.log().count("the ruleset is not taken") == 1, sluice.log()
        assert NAMED in sluice.log()
        assert rig.left_behind() == before
        assert rig.can_ping("h1", "10.77.2.2")


def test_check_says_what_run_says():
    with Rig() as rig:
        rig.write("odd.nft", chain("odd", "accept", ODD_RULE) + "\n")
        config = rig.write("odd.yaml", "interfaces: [{name: h1}, {name: h2}]\n"
                                       "unsupported: refuse\nlinux: {nftables: odd.nft}\n")
        links = [link["ifname"] for link in rig.links()]
        done = rig.run("router", SLUICE, "check", "--config", config, check=False)
        assert done.returncode == 2 and NAMED in done.stdout, done.stdout
        assert rig.run("router", "nft", "list", "ruleset").stdout == ""
        assert [link["ifname"] for link in rig.links()] == links


@pytest.mark.parametrize("address", ["10.77.2.2", "fd77:0:0:2::2"], ids=["ipv4", "ipv6"])
def test_first_rules_are_the_kernels_until_they_can_be_taken(address):
    """From no rules to refused ones, to what can be taken, to none."""
    with Rig() as rig, Sluice(rig, unsupported="refuse") as sluice:
        with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h1"):
            assert answered(rig.ping("h1", address).stdout)
        nft(rig, chain("odd", "drop", ODD_RULE))
        refused(sluice)
        wait_for(lambda: sluice.show("status")["kernel_decides"], "the kernel decides")
        assert NAMED in firewall(sluice)["refused"]
        assert sluice.log().count(NAMED) == 1, sluice.log()
        before = sluice.get("sluice_forwarded_packets_total")
        with growing(sluice, "sluice_punts_total", interface="h1", reason="firewall"):
            assert not rig.can_ping("h1", address), "the policy is drop"
        assert sluice.get("sluice_forwarded_packets_total") == before
        # Repaired: no rule that is odd. The policy still drops, now Sluice's.
        nft(rig, "delete rule inet odd f handle 2")
        refused(sluice, False)
        wait_for(lambda: not sluice.show("status")["kernel_decides"], "Sluice decides")
        with growing(sluice, "sluice_dropped_packets_total", interface="h1",
                     reason="firewall_rule"):
            assert not rig.can_ping("h1", address)
        nft(rig, "delete table inet odd")
        wait_for(lambda: not firewall(sluice), "no rules")
        with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h1"):
            assert answered(rig.ping("h1", address).stdout)
        # Refused and taken back.
        nft(rig, chain("odd", "drop", ODD_RULE))
        refused(sluice)
        nft(rig, "delete table inet odd")
        refused(sluice, False)
        wait_for(lambda: not sluice.show("status")["kernel_decides"], "Sluice decides")
        with growing(sluice, "sluice_forwarded_packets_total", 3, interface="h1"):
            assert answered(rig.ping("h1", address).stdout)
        sluice.check_accounts()


def test_connections_of_the_kernels_time_go_on():
    known = "ct state established,related accept"
    with Rig() as rig, Sluice(rig, unsupported="refuse") as sluice:
        nft(rig, chain("odd", "drop", ODD_RULE, known, "tcp dport 9000 accept"))
        refused(sluice)
        wait_for(lambda: sluice.show("status")["kernel_decides"], "the kernel decides")
        with inside(rig.namespace("h2")):
            listener = socket.create_server(("", 9000))
        with inside(rig.namespace("h1")):
            client = socket.create_connection(("10.77.2.2", 9000), timeout=20)
        with listener, client:
            server, _ = listener.accept()
            with server:
                server.settimeout(20)
                client.sendall(b"before")
                assert server.recv(100) == b"before"
                # No new connections from now on, so it must be known.
                nft(rig, "flush chain inet odd f", f"add rule inet odd f {known}")
                refused(sluice, False)
                wait_for(lambda: "connections taken over from the kernel" in sluice.log(),
                         lambda: sluice.log())
                for one, other in ((client, server), (server, client)):
                    with growing(sluice, "sluice_forwarded_packets_total"):
                        one.sendall(b"after")
                        assert other.recv(100) == b"after"


def test_services_are_not_open_to_what_the_refused_rules_forbid():
    with Rig() as rig, Sluice(rig, unsupported="refuse", services=[
            {"echo": "echo", "listen": ["10.77.1.1:7"]}]) as sluice:
        def reached():
            with inside(rig.namespace("h1")):
                s = socket.socket()
            with s:
                s.settimeout(1)
                return s.connect_ex(("10.77.1.1", 7)) == 0
        assert reached()
        nft(rig, chain("odd", "accept", ODD_RULE), "add chain inet odd input "
            "{ type filter hook input priority 0; policy drop; }",
            "add rule inet odd input iifname lo accept")
        refused(sluice)
        wait_for(lambda: sluice.show("status")["kernel_decides"], "the kernel decides")
        assert not reached() and not rig.can_ping("h1", "10.77.1.1")
        nft(rig, "delete table inet odd")
        refused(sluice, False)
        wait_for(reached, "the service is back")


def test_what_is_in_force_stays():
    """From rules that can be taken to refused ones in their place, to none, to refused ones."""
    blocked = "ip daddr 10.77.2.2 icmp type echo-request counter drop"
    with Rig() as rig, Sluice(rig, unsupported="refuse") as sluice:
        nft(rig, chain("good", "accept", blocked))
        wait_for(lambda: firewall(sluice).get("rules") == 1, "taken")
        nft(rig, "flush ruleset", chain("odd", "accept", ODD_RULE))
        refused(sluice)
        assert sluice.show("status")["kernel_decides"] == []
        assert firewall(sluice)["rules"] == 1 and NAMED in firewall(sluice)["refused"]
        with growing(sluice, "sluice_dropped_packets_total", interface="h1",
                     reason="firewall_rule"):
            assert not rig.can_ping("h1", "10.77.2.2")
        nft(rig, "flush ruleset")
        refused(sluice, False)
        wait_for(lambda: not firewall(sluice), "none in force")
        assert answered(rig.ping("h1", "10.77.2.2").stdout)
        nft(rig, chain("odd", "drop", ODD_RULE))
        refused(sluice)
        wait_for(lambda: sluice.show("status")["kernel_decides"], "the kernel decides")
        assert not rig.can_ping("h1", "10.77.2.2")


def test_elements_do_not_bring_refused_rules_into_force():
    """Neither those that nft adds meanwhile, nor those that packets add."""
    with Rig() as rig, Sluice(rig, unsupported="refuse") as sluice:
        nft(rig, "add table inet good",
            "add set inet good seen { type ipv4_addr; flags dynamic; timeout 1h; }",
            "add set inet good denied { type ipv4_addr; }",
            chain("good", "accept", "add @seen { ip saddr }",
                  "ip daddr @denied counter drop"))
        wait_for(lambda: firewall(sluice).get("rules") == 2, "taken")
        nft(rig, chain("odd", "drop", ODD_RULE))
        refused(sluice)
        nft(rig, "add element inet good denied { 10.77.2.2 }")
        # When the kernel has what packets add, Sluice has seen the element before.
        def written():
            rig.ping("h1", "10.77.2.2", count=1, check=False)
            return "10.77.1.2" in rig.run("router", "nft", "list set inet good seen").stdout
        wait_for(written, "the element is in the kernel's set")
        assert sluice.get("sluice_ruleset_refused") == 1
        assert firewall(sluice)["rules"] == 2 and firewall(sluice)["unsupported"] == 0
        assert answered(rig.ping("h1", "10.77.2.2").stdout), "the set is of the ruleset before"
        nft(rig, "delete table inet odd")
        refused(sluice, False)
        with growing(sluice, "sluice_dropped_packets_total", interface="h1",
                     reason="firewall_rule"):
            assert not rig.can_ping("h1", "10.77.2.2")


def test_reload_says_that_it_changes_at_the_next_start():
    with Rig() as rig, Sluice(rig, unsupported="refuse") as sluice:
        sluice.configure(rig.hosts, unsupported="kernel")
        sluice.hang_up()
        wait_for(lambda: "reloaded" in sluice.log(), lambda: sluice.log())
        assert re.search(r"reload: .*\bunsupported\b.* change at the next start only", sluice.log())
        nft(rig, chain("odd", "drop", ODD_RULE))
        refused(sluice)
