"""TCP and UDP that end in the router: the same conversation with the kernel's sockets and Sluice's.

A Conversation speaks for a host's port on both sides. Sequence numbers count from the SYN of who
sends, so what is sent differs between the sides only by the initial sequence numbers that they
chose. Answers are compared but for what either side is free to choose:

  initial sequence numbers, values of timestamps   relative to the first, and left out
  window, shift of its scale                       whether it is zero, whether it is scaled
  order of options and padding                     compared by kind
  an ACK that data or a FIN carries as well        delayed by one side, not by the other: left out
  data or a FIN sent again                         when, is a matter of timers: left out
"""

import time

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from addresses import ip4, ip6
from frames import ether, v4, v6
from normalise import complete_checksum, is_housekeeping, normalise

LINK = "left"
ROUTER = {4: ip4(LINK), 6: ip6(LINK)}
START = 0xffff_ff00  # wraps soon
_ANSWER_WITHIN = 5.0
_GRACE = 0.6  # for an acknowledgment that one side delays


class _Answer:
    """A TCP segment of the router's; equal when all that must be the same is."""

    def __init__(self, frame, isn):
        packet = Ether(frame)
        ip = packet[IP] if IP in packet else packet[IPv6]
        tcp = packet[TCP]
        self.flags = str(tcp.flags)
        # Without a SYN of its own to count from (a reset of what is no connection), as it is.
        self.seq = (tcp.seq - isn if isn is not None else tcp.seq) & 0xffff_ffff
        self.ack = (tcp.ack - START & 0xffff_ffff) if "A" in self.flags else tcp.ack
        self.data = bytes(tcp.payload)[:_payload_length(ip, tcp)]
        self.window = tcp.window != 0
        self.urgent = tcp.urgptr
        self.options = {}
        for kind, value in tcp.options:
            if kind == "SAck":
                value = tuple(edge - START & 0xffff_ffff for edge in value)
            if kind in ("Timestamp", "WScale"):
                value = None
            if kind not in ("NOP", "EOL"):
                self.options[kind] = value
        self.ip = (ip.ttl, ip.tos, str(ip.flags)) if IP in packet else (ip.hlim, ip.tc)
        self.sound = complete_checksum(frame) == frame

    def only_acknowledges(self):
        return self.flags == "A" and not self.data

    def takes_up_sequence(self):
        """Of a connection that there is: data, or a FIN."""
        return bool(self.data) or "F" in self.flags

    def key(self):
        return (self.flags, self.seq, self.ack, self.data, self.window, self.urgent,
                sorted(self.options.items(), key=lambda item: str(item[0])), self.ip, self.sound)

    def __repr__(self):
        return (f"{self.flags} seq {self.seq} ack {self.ack} data {self.data[:40]!r} window "
                f"{'open' if self.window else 'shut'} urgent {self.urgent} {self.options} ip "
                f"{self.ip}{'' if self.sound else ' CHECKSUM WRONG'}")


def _payload_length(ip, tcp):
    return (ip.len - ip.ihl * 4 if ip.name == "IP" else ip.plen) - tcp.dataofs * 4


class Conversation:
    """From a port of its own with `port` of the router's, on both sides at once."""

    def __init__(self, rig, family, port, own_port):
        self.rig = rig
        self.family = family
        self.port = port
        self.own_port = own_port
        self._isn = [None, None]
        self._answers = [[], []]  # frames, as they came
        rig.settle(LINK)
        for side in rig.sides:
            side.frames.clear()

    def send(self, flags, seq=0, ack=None, data=b"", **fields):
        """A segment, on both sides. `ack` counts from the side's own SYN, which takes one; without
        an answer to count from it is sent as it is."""
        for i, side in enumerate(self.rig.sides):
            isn = self._isn[i] or 0
            segment = TCP(sport=self.own_port, dport=self.port, flags=flags,
                          seq=START + seq & 0xffff_ffff, ack=isn + (ack or 0) & 0xffff_ffff,
                          **{"window": 65535, **fields}) / data
            side.send(LINK, self._frame(segment))
        self.rig.settle(LINK)
        self._collect()

    def _frame(self, layer):
        ip = v4(dst=ROUTER[4]) if self.family == 4 else v6(dst=ROUTER[6])
        return ether(ip / layer, LINK)

    def _collect(self):
        for i, side in enumerate(self.rig.sides):
            for _, frame in side.frames:
                if is_housekeeping(frame):
                    continue
                packet = Ether(frame)
                if TCP in packet and packet[TCP].dport == self.own_port:
                    self._answers[i].append(frame)
                    if packet[TCP].flags.S:
                        self._isn[i] = packet[TCP].seq
                elif TCP not in packet:  # an ICMP error, say
                    self._answers[i].append(frame)
            side.frames.clear()

    def _seen(self, i):
        answers = [_Answer(frame, self._isn[i]) if TCP in Ether(frame) else normalise(frame)
                   for frame in self._answers[i]]
        answers = [one for n, one in enumerate(answers) if not _sent_before(answers, n)]
        return [one for n, one in enumerate(answers) if not _carried_by_the_next(answers, n)]

    def check(self, flags):
        """All answers until now are the same on both sides, and have these flags, a word each."""
        count = len(flags.split())
        end = time.monotonic() + _ANSWER_WITHIN
        while any(len(self._seen(i)) < count for i in (0, 1)) and time.monotonic() < end:
            self._wait()
        end = time.monotonic() + _GRACE
        while self._keys(0) != self._keys(1) and time.monotonic() < end:
            self._wait()
        kernel, sluice = self._seen(0), self._seen(1)
        said = f"\n  kernel: {kernel}\n  sluice: {sluice}"
        if self._keys(0) != self._keys(1):
            pytest.fail(f"the two sides differ{said}", pytrace=False)
        if [one.flags for one in kernel] != flags.split():
            pytest.fail(f"expected {flags or 'nothing'}{said}", pytrace=False)

    def _wait(self):
        for side in self.rig.sides:
            side.receive(0.02)
        self._collect()

    def _keys(self, i):
        return [one.key() if isinstance(one, _Answer) else one for one in self._seen(i)]

    def end(self):
        """Resets what may be left of the connection, wherever it stands."""
        acks = []
        for i in (0, 1):
            known = [a.ack for a in self._seen(i) if isinstance(a, _Answer) and "A" in a.flags]
            acks.append(known[-1] if known else None)
        if acks[0] is not None and acks[0] == acks[1]:
            self.send("R", acks[0])


def _sent_before(answers, n):
    one = answers[n]
    return (isinstance(one, _Answer) and one.takes_up_sequence() and
            any(isinstance(other, _Answer) and other.key() == one.key() for other in answers[:n]))


def _carried_by_the_next(answers, n):
    """Whether an ACK says nothing that the FIN or the data behind it does not."""
    if n + 1 == len(answers):
        return False
    one, following = answers[n], answers[n + 1]
    return (isinstance(one, _Answer) and isinstance(following, _Answer) and
            one.only_acknowledges() and following.seq == one.seq and
            following.takes_up_sequence() and following.ack == one.ack)
