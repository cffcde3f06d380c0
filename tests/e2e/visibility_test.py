"""Seeing the firewall and NAT: the home router of config/, looked into while packets go through it."""

import json
import os
import re
import subprocess
import time

import pytest

from rig import wait_for

SOURCE = os.environ["SLUICE_SOURCE"]
SLUICE = os.environ["SLUICE_BIN"]
RIG = os.path.join(SOURCE, "deploy/rig.sh")
NAME = f"vis{os.getpid()}"


def run(*command, check=True, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=60, **options)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
    return done


def on(host, *command, check=True):
    return run(RIG, "exec", "--name", NAME, host, *command, check=check)


class Router:
    def __init__(self, directory):
        self.control = str(directory / "sluice.sock")
        self.log = directory / "sluice.log"
        rules = open(os.path.join(SOURCE, "config/home-router.nft"), encoding="utf-8").read()
        for old, new in (("192.168.1.0/24", "10.77.1.0/24"), ("192.168.1.10", "10.77.1.2"),
                         ("2001:db8:1::/64", "fd77:0:0:1::/64")):
            assert old in rules
            rules = rules.replace(old, new)
        (directory / "home-router.nft").write_text(rules)
        with open(os.path.join(SOURCE, "config/home-router.yaml"), encoding="utf-8") as config:
            (directory / "home-router.yaml").write_text(config.read())
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", f"{NAME}-router", SLUICE, "run", "--config",
                 str(directory / "home-router.yaml"), "--control", self.control],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def ask(self, *arguments, check=True):
        return run(SLUICE, "--control", self.control, *arguments, check=check)

    def view(self, *arguments):
        return json.loads(self.ask(*arguments, "--json").stdout)

    def trace(self, *arguments):
        return subprocess.Popen([SLUICE, "--control", self.control, "trace", *arguments],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def router(tmp_path_factory):
    run(RIG, "up", "--name", NAME, "--hosts", "lan0,wan0")
    router = Router(tmp_path_factory.mktemp("visibility"))
    try:
        ready = router.ask("wait-ready", "--timeout", "20", check=False)
        assert ready.returncode == 0, router.log.read_text()
        yield router
        router.process.terminate()
        assert router.process.wait(timeout=20) == 0, router.log.read_text()
    finally:
        if router.process.poll() is None:
            router.process.kill()
            router.process.wait()
        run(RIG, "down", "--name", NAME, check=False)


def ping():
    on("lan0", "ping", "-c", "2", "-i", "0.2", "-W", "5", "10.77.2.2")


def test_rules_are_nfts_with_sluices_counts(router):
    ping()
    rules = router.view("show", "rules")
    listed = on("router", "nft", "-a", "-t", "list", "ruleset").stdout.splitlines()
    without_counts = lambda text: re.sub(r"packets \d+ bytes \d+", "packets N", text)
    assert [without_counts(line["text"]) for line in rules["lines"]] == \
        [without_counts(line) for line in listed]
    masquerade = [line for line in rules["lines"] if "masquerade" in line["text"] and line["handle"]]
    assert len(masquerade) == 1 and masquerade[0]["packets"] >= 1
    assert f'packets {masquerade[0]["packets"]} ' in masquerade[0]["text"]
    where = {line["chain"]: line["where"] for line in rules["lines"] if line["handle"]}
    assert where["input"] == "kernel" and where["forward"] == "worker"
    assert rules["firewall"]["for_this_machine"] == 7
    assert rules["firewall"]["unsupported"] == 0, router.ask("show", "rules").stdout
    assert "firewall" in router.ask("show", "status").stdout


def test_flows_and_nat(router):
    ping()
    flows = router.view("show", "flows", "icmp", "ip", "saddr", "10.77.1.0/24")["flows"]
    assert flows and all(flow["nat"] == "masquerade" for flow in flows)
    assert flows[0]["reply"]["destination"] == "10.77.2.1"
    assert router.view("show", "flows", "tcp")["flows"] == []
    lines = router.ask("show", "flows", "--conntrack").stdout
    assert re.search(r"^icmp     1 \d+ src=10.77.1.2 dst=10.77.2.2 type=8 code=0 id=\d+ packets=\d+ "
                     r"bytes=\d+ src=10.77.2.2 dst=10.77.2.1 ", lines, re.MULTILINE), lines
    nat = router.view("show", "nat")
    assert nat["mappings"] >= 1 and nat["addresses"][0]["address"] == "10.77.2.1"
    assert {rule["kind"] for rule in nat["rules"]} == {"masquerade", "dnat"}
    assert router.ask("show", "flows", "tcp", "dprt", "1", check=False).returncode == 2


def logged(router):
    return [line for line in router.log.read_text().splitlines() if "refused: " in line]


def test_what_rules_log_and_add_to_sets(router):
    """By rules that were there before Sluice: the log, its counter, and the kernel's set."""
    def added():
        return "10.77.2.2 " in on("router", "nft", "list", "set", "inet", "home", "opened4").stdout
    assert not logged(router) and not added()
    on("wan0", "ping", "-c", "1", "-W", "0.1", "10.77.1.2", check=False)
    wait_for(lambda: logged(router) and added(), "the log and the set have it", seconds=20)
    (line,) = logged(router)
    assert re.search(r"refused: IN=wan0 OUT=lan0 .*SRC=10\.77\.2\.2 DST=10\.77\.1\.2 .*TTL=63 "
                     r".*PROTO=ICMP TYPE=8 CODE=0", line), line
    scrape = on("router", "curl", "-sS", "--max-time", "5", "http://127.0.0.1:9470/metrics").stdout
    assert 'sluice_log_packets_total{prefix="refused: "} 1\n' in scrape


def test_trace_shows_what_became_of_packets(router):
    trace = router.trace("icmp[icmptype] == icmp-echo", "--limit", "1", "--json")
    end = time.monotonic() + 20
    while trace.poll() is None and time.monotonic() < end:
        ping()
    assert trace.poll() == 0, trace.communicate()[0]
    (line,) = trace.communicate()[0].splitlines()
    packet = json.loads(line)
    assert packet["interface"] == "lan0" and packet["output"] == "wan0"
    assert packet["verdict"] == "forwarded" and packet["length"] == 98
    assert "ip saddr 10.77.1.2 ip daddr 10.77.2.2" in packet["packet"]
    assert "ip saddr 10.77.2.1 ip daddr 10.77.2.2" in packet["translated"]
    assert all(re.fullmatch(r"inet home \w+ handle \d+", rule) for rule in packet["rules"])
    assert packet["rules"]


def test_trace_names_the_rule_that_drops(router):
    trace = router.trace("tcp dst port 22", "--limit", "1", "--json")
    end = time.monotonic() + 20
    while trace.poll() is None and time.monotonic() < end:
        on("wan0", "nc", "-z", "-w", "1", "10.77.1.2", "22", check=False)
    assert trace.poll() == 0, trace.communicate()[0]
    packet = json.loads(trace.communicate()[0].splitlines()[0])
    assert (packet["verdict"], packet["reason"]) == ("dropped", "firewall_rule")
    handle = packet["rules"][-1].split()[-1]
    rules = router.view("show", "rules")["lines"]
    (deciding,) = [line for line in rules if str(line["handle"]) == handle and
                   line["chain"] == "from_outside"]
    assert "refused from outside" in deciding["text"]


def test_explain_comes_to_what_happens(router):
    def explain(*words):
        return router.view("explain", "--in", "wan0", "ip", "saddr", "10.77.2.2", *words)
    forwarded = explain("ip", "daddr", "10.77.2.1", "tcp", "dport", "8080", "tcp", "flags", "syn")
    assert forwarded["verdict"] == "forwarded to lan0"
    assert any(stage["stage"] == "dnat" and "10.77.1.2" in stage["text"]
               for stage in forwarded["stages"])
    dropped = explain("ip", "daddr", "10.77.1.2", "tcp", "dport", "22", "tcp", "flags", "syn")
    assert dropped["verdict"] == "dropped: firewall_rule"
    assert "refused from outside" in json.dumps(dropped["stages"][-1])


def test_metrics(router):
    ping()
    scrape = on("router", "curl", "-sS", "--max-time", "5", "http://127.0.0.1:9470/metrics").stdout
    value = lambda series: float(re.search(rf"^{re.escape(series)} (\S+)$", scrape, re.MULTILINE)[1])
    assert value('sluice_conntrack_flows{worker="0"}') >= 1
    assert value('sluice_conntrack_events_total{worker="0",event="new"}') >= 1
    assert value('sluice_ruleset_rules{where="kernel"}') == 0
    assert value('sluice_ruleset_rules{where="local"}') == 7
    assert value('sluice_ruleset_rules{where="worker"}') + \
        value('sluice_ruleset_rules{where="xdp"}') == 15
    assert value('sluice_table_limit{table="flows"}') == 65536
    assert value('sluice_rule_packets_total{family="inet",table="home",chain="leaving",'
                 'rule="the LAN behind one address"}') >= 1
