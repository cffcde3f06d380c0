"""Two routers with the same ruleset: the kernel, and beside it Sluice (or a second kernel).

What goes in and what must be the same: a list of frames, sent in order; every frame that comes out,
ICMP errors and resets included, by link; and the count of every rule. SLUICE_DIFF_AGAINST=kernel
compares the kernel with itself, which shows what the harness is worth.

The order of things is kept without sleeping. ARP requests go by the same link behind the frames,
and no rule of a test sees them; their answers show that the frames before them have been decided.
That is awaited whenever the next frame comes by another link, since routers may serve their links
in any order, and before a reply, which depends on how the packet before it came out.

Hosts are behind the links' gateways (host 2): host k of round r has the address far(link, r, k). Every
round has addresses of its own, so that no connection of an earlier one is in the way.
"""

import http.client
import json
import os
import re
import socket
import struct
import time
import urllib.request

import pytest

import compare
from addresses import LINKS, SENTINEL, ip4, ip6, mac
from nft import Nft
from rig import Side
from topology import Topology

AGAINST_KERNEL = os.environ.get("SLUICE_DIFF_AGAINST") == "kernel"
_ANSWER_WITHIN = 10.0
# For what may still be on its way when the two differ: what the kernel answers for Sluice, on a busy
# machine. Who has done the same waits for nothing.
GRACE = 5.0
_SERIES = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_ARP_REPLY = b"\x08\x06\0\x01\x08\0\x06\x04\0\x02"
_SENTINEL_MAC = b"\x02\x5e"

SYSCTLS = {
    # Nothing of its own accord: the postrouting chains would see it.
    "ipv6/conf/default/mldv2_unsolicited_report_interval": 1,
    "ipv6/conf/default/mldv1_unsolicited_report_interval": 1,
    **{f"ipv4/conf/{name}/send_redirects": 0 for name in ("all", "default", *LINKS)},
    "netfilter/nf_conntrack_acct": 1,
}
_FAR = {"left": 11, "right": 12, "wan": 13, "other": 14}
SETUP = [line for link, net in _FAR.items() for line in (
    f"route add {net}.0.0.0/8 via {ip4(link, 2)}",
    f"route add fd{net}::/16 via {ip6(link, 2)}")]


def far(link, number, host, family=4):
    """The address of host `host` (1 to 250) behind the link's gateway in round `number`."""
    if family == 4:
        return f"{_FAR[link]}.{number >> 8 & 255}.{number & 255}.{host}"
    return f"fd{_FAR[link]}:{number & 0xffff:x}::{host:x}"


def link_of(address):
    """Behind which link an address of far(), or of a link's own network, is; None: of none."""
    first = address.split(":")[0][2:] if ":" in address else address.split(".")[0]
    for link, net in _FAR.items():
        if first == str(net):
            return link
    if address.startswith("10."):
        number = address.split(".")[1]
    elif address.startswith("fd00:"):
        number = address.split(":")[1]
    else:
        return None
    return next((link for link, n in LINKS.items() if str(n) == number), None)


def _mac(text):
    return bytes.fromhex(text.replace(":", ""))


_HEADER = {(link, host, version): _mac(mac(link)) + _mac(mac(link, host)) + kind
           for link in LINKS for host in (*range(2, 10), SENTINEL)
           for version, kind in ((4, b"\x08\0"), (6, b"\x86\xdd"))}


def frame_of(link, packet, host=2):
    """The frame with which `host` on `link` hands the packet to the router."""
    return _HEADER[link, host, packet[0] >> 4] + packet


def _arp_request(link, number):
    sender = _SENTINEL_MAC + struct.pack("!I", number)
    return (_mac(mac(link)) + sender + b"\x08\x06\0\x01\x08\0\x06\x04\0\x01" + sender +
            socket.inet_aton(ip4(link, SENTINEL)) + bytes(6) + socket.inet_aton(ip4(link)))


class Twin(Side):
    """One of the two, with its rules and what has come out of it since begin()."""

    def __init__(self, name, topology):
        super().__init__(name, topology)
        self.nft = Nft(topology.router)
        self.taken = 0          # of self.frames, by whoever watches flows
        self.generation = 0

    def close(self):
        super().close()
        self.nft.close()

    def _take(self, link, frame, control):
        if frame[12:22] == _ARP_REPLY and frame[32:34] == _SENTINEL_MAC:
            self._answers.add(struct.unpack_from("!I", frame, 34)[0])
            return
        super()._take(link, frame, control)

    def answered(self, numbers, seconds):
        """Whether these sentinels are answered within so many seconds."""
        deadline = time.monotonic() + seconds
        while not set(numbers) <= self._answers and time.monotonic() < deadline:
            self.receive(0.01)
        return set(numbers) <= self._answers

    def wait_until_quiet(self):
        """Until the router has reported its multicast groups, which rules may count."""
        said, since = None, time.monotonic()
        deadline = time.monotonic() + _ANSWER_WITHIN
        while time.monotonic() - since < 0.1 and time.monotonic() < deadline:
            with self.topology.router.entered(), open("/proc/thread-self/net/snmp6",
                                                      encoding="ascii") as file:
                now = [line for line in file if "OutMLD" in line or "OutRouterSol" in line]
            if now != said:
                said, since = now, time.monotonic()
            self.receive(0.01)

    def begin(self):
        while self.receive(0):
            pass
        self.frames.clear()
        self.taken = 0

    def counts(self):
        """Of every rule that has a counter, and of named counters."""
        return self.nft.counts()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


class SluiceTwin(Twin):
    """Where Sluice runs: it counts what it judges, and the kernel what was given to it."""

    def show(self, what):
        connection = _UnixConnection(self.topology.control)
        try:
            connection.request("GET", f"/v1/{what}")
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            pytest.fail(f"sluice show {what}: {answer.status} {text!r}", pytrace=False)
        return json.loads(text)

    def counts(self):
        total = super().counts()
        entries = []
        for line in self.show("rules")["lines"]:
            if line["handle"]:
                place = (line["chain"], line["handle"])
            elif line["chain"]:  # a named counter
                place = ("counter", line["chain"])
            else:
                continue
            entries.append(((line["family"], line["table"], *place), line))
        for key, entry in entries:
            if key in total:
                packets, size = total[key]
                total[key] = packets + entry["packets"], size + entry["bytes"]
        return total

    def metric(self, name, **labels):
        """The sum of a metric's series with these labels."""
        with self.topology.router.entered():
            with urllib.request.urlopen("http://127.0.0.1:9470/metrics", timeout=20) as page:
                text = page.read().decode()
        total = 0.0
        for series, have, value in _SERIES.findall(text):
            if series == name and labels.items() <= dict(_LABEL.findall(have)).items():
                total += float(value)
        return total

    def wait_for_rules(self):
        """Until Sluice judges by the ruleset that the kernel has now, in XDP as well."""
        wanted = self.nft.generation()
        deadline = time.monotonic() + _ANSWER_WITHIN
        while True:
            firewall = self.show("rules")["firewall"]
            if firewall["generation"] >= wanted and not firewall["in_change"]:
                break
            if time.monotonic() > deadline:
                pytest.fail(f"Sluice did not take over ruleset {wanted}:\n"
                            f"{self.topology.read_log()[-3000:]}", pytrace=False)
            time.sleep(0.002)


    def wait_for_address(self, address, neighbour):
        """Until Sluice knows it as the router's own, and the way to a neighbour in its network, which
        the kernel adds after it."""
        deadline = time.monotonic() + _ANSWER_WITHIN

        def is_known():
            own = self.show(f"routes?destination={address}")["routes"]
            near = self.show(f"routes?destination={neighbour}")["routes"]
            wan = [i for i in self.show("interfaces") if i["name"] == "wan"]
            return ([route["type"] for route in own] == ["local"] and
                    any(address.rsplit(".", 1)[0].rsplit("::", 1)[0] in route["prefix"]
                        for route in near) and
                    any(a.startswith(address + "/") for i in wan for a in i["addresses"]))
        while not is_known():
            if time.monotonic() > deadline:
                pytest.fail(f"Sluice does not know {address}", pytrace=False)
            time.sleep(0.002)


class Twins:
    def __init__(self, sysctls=None, setup=(), against_kernel=AGAINST_KERNEL, config="",
                 napi=False):
        """`config`: further sections of Sluice's configuration, as YAML. `napi`: see Topology."""
        self._number = 0
        self.sides = []
        self._topologies = []
        self._sent_on = None
        self._cores = None
        self.ruleset = ""
        self.round = 0
        try:
            for letter in "ks":
                self._topologies.append(
                    Topology(letter, {**SYSCTLS, **(sysctls or {})}, (*SETUP, *setup), napi))
            if not against_kernel:
                self._topologies[1].start_sluice(config)
            kinds = (Twin, Twin if against_kernel else SluiceTwin)
            for name, kind, topology in zip(("kernel", "kernel2" if against_kernel else "sluice"),
                                            kinds, self._topologies):
                self.sides.append(kind(name, topology))
            # One core: what is sent from two of them may overtake.
            self._cores = os.sched_getaffinity(0)
            os.sched_setaffinity(0, {max(self._cores)})
            for side in self.sides:
                self._wake(side)
                side.wait_until_quiet()
        except BaseException:
            self.close()
            raise

    def _wake(self, side):
        """Until every link carries frames: what is sent while it comes up gets lost."""
        deadline = time.monotonic() + _ANSWER_WITHIN
        while not side.answered(self.sentinels_to(side), 0.1):
            if time.monotonic() > deadline:
                pytest.fail(f"the {side.name} side does not answer", pytrace=False)

    @property
    def kernel(self):
        return self.sides[0]

    @property
    def other(self):
        return self.sides[1]

    def close(self):
        """Takes all down; returns how Sluice ended."""
        if self._cores:
            os.sched_setaffinity(0, self._cores)
        for side in self.sides:
            side.close()
        self.sides = []
        ended = (0, "")
        for topology in self._topologies:
            if topology.process is not None:
                ended = topology.stop_sluice()
            topology.close()
        self._topologies = []
        return ended

    def load(self, ruleset, fresh=True):
        """The ruleset for both, in force when this returns. `fresh`: a new round of addresses."""
        self.ruleset = ruleset
        self.nft("flush ruleset\n" + ruleset)
        if fresh:
            self.round += 1
            self.begin()

    def nft(self, commands):
        """Commands for both, in force when this returns."""
        for side in self.sides:
            side.nft.run(commands)
        self.wait_for_rules()

    def wait_for_rules(self):
        if isinstance(self.other, SluiceTwin):
            self.other.wait_for_rules()

    def wait_for_address(self, address, neighbour):
        if isinstance(self.other, SluiceTwin):
            self.other.wait_for_address(address, neighbour)

    def begin(self):
        self.settle(*LINKS)
        for side in self.sides:
            side.begin()

    def forget(self):
        """What has come out so far has been compared, and is done with."""
        for side in self.sides:
            side.begin()

    def send(self, link, packets, host=2, partial=None):
        """`packets`: one IP packet, or one for each side; None sends nothing there."""
        if self._sent_on not in (None, link):
            self.settle(self._sent_on)
        self._sent_on = link
        both = packets if isinstance(packets, (tuple, list)) else (packets, packets)
        for side, packet in zip(self.sides, both):
            if packet is not None:
                side.send(link, frame_of(link, packet, host), partial)

    def send_frame(self, link, frame):
        """A whole frame, the same for both."""
        if self._sent_on not in (None, link):
            self.settle(self._sent_on)
        self._sent_on = link
        for side in self.sides:
            side.send(link, frame)

    def send_each(self, links, pieces, host=2):
        """Per side: the link and the packets in order. The links may differ where the two sides
        do; what was sent before has been settled by the caller then."""
        if links[0] == links[1] and len(pieces[0]) == len(pieces[1]):
            for pair in zip(*pieces):
                self.send(links[0] or "left", pair, host)
            return
        self.settle_sent()
        for side, link, packets in zip(self.sides, links, pieces):
            for packet in packets:
                if link and packet is not None:
                    side.send(link, frame_of(link, packet, host))
        self.settle(*{link for link in links if link})

    def settle_sent(self):
        """Until everything sent has been decided, and has come out if it does."""
        if self._sent_on is not None:
            self.settle(self._sent_on)
            self.settle(*LINKS)

    def settle(self, *links):
        """Until what was sent on these links before has been decided in both."""
        numbers = []
        for link in links or LINKS:
            self._number += 1
            numbers.append(self._number)
            frame = _arp_request(link, self._number)
            for side in self.sides:
                side.send(link, frame)
        for side in self.sides:
            if side.wait_for(numbers):
                continue
            process = side.topology.process
            log = side.topology.read_log()[-3000:] if process else ""
            state = f" (exit status {process.poll()})" if process else ""
            pytest.fail(f"the {side.name} side no longer answers{state}\n{log}", pytrace=False)
        if self._sent_on in links:
            self._sent_on = None

    def sentinels_to(self, side):
        """Sends one by every link, to one side only; returns what to wait for."""
        numbers = []
        for link in LINKS:
            self._number += 1
            numbers.append(self._number)
            side.send(link, _arp_request(link, self._number))
        return numbers

    def finish(self):
        """Until everything sent has had its effect."""
        self.settle_sent()

    def differences(self, choices=compare.NO_CHOICES, counters=True, grace=GRACE):
        """What differs since begin(): lines for people; empty when all is the same."""
        self.finish()
        deadline = time.monotonic() + grace
        while True:
            found = compare.outputs(self.kernel.frames, self.other.frames, choices)
            if not found and counters:
                found = self._count_differences()
            if not found or time.monotonic() > deadline:
                return found
            for side in self.sides:
                side.receive(0.02)

    def _count_differences(self):
        ours, theirs = self.kernel.counts(), self.other.counts()
        if ours == theirs:
            return []
        texts = self.kernel.nft.rule_texts()
        return [f"{' '.join(map(str, key))}: {ours.get(key)} on the kernel, {theirs.get(key)} on "
                f"{self.other.name}: {texts.get(key, '')}"
                for key in sorted(ours.keys() | theirs.keys(), key=str)
                if ours.get(key) != theirs.get(key)]

    def check(self, what, choices=compare.NO_CHOICES, counters=True):
        """Fails unless both did the same; returns the kernel's frames, normalised, by link."""
        found = self.differences(choices, counters)
        if found:
            pytest.fail("\n".join([f"{what}: the two sides differ", *found, "with the ruleset",
                                   self.ruleset]), pytrace=False)
        return compare.by_link(self.kernel.frames)
