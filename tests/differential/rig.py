"""The experiment: a frame goes into both topologies, and what comes out must be the same.

There are no sleeps. After the frame the harness sends echo requests of its own (sentinels) by the
same link, one that Sluice answers itself and one (with an IP option) that it gives to the kernel,
and when both have been answered, the frame before them has been decided. One more sentinel on every
other link then shows that what was to leave there has left. Sentinels come from a host of their
own, so that no test can spoil their way.

Only when the two sides differ is there a grace period, for what may still be on its way.
"""

import select
import socket
import struct
import time

import pytest

from addresses import LINKS, SENTINEL, ip4, mac
from frames import describe, hexdump
from normalise import complete_checksum, fold, is_housekeeping, normalise
from topology import Topology

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_AUXDATA, _PACKET_VNET_HDR, _PACKET_IGNORE_OUTGOING = 263, 8, 15, 23
_CHECKSUM_NOT_READY = 8
_AUXDATA = struct.Struct("IIIHHHH")
_MARK = b"sluice-sentinel!"
_ANSWER_WITHIN = 10.0
_GRACE = 0.4


def _bytes(text, base, separator):
    return bytes(int(part, base) for part in text.split(separator))


def _sentinel(link, number, with_option):
    icmp = struct.pack("!BBHHH", 8, 0, 0, 0x5e77, number & 0xffff)
    icmp += _MARK + struct.pack("!I", number)
    icmp = icmp[:2] + struct.pack("!H", ~fold(icmp) & 0xffff) + icmp[4:]
    option = b"\x01\x01\x01\x00" if with_option else b""
    header = struct.pack("!BBHHHBBH", 0x45 + len(option) // 4, 0, 20 + len(option) + len(icmp),
                         number & 0xffff, 0, 64, 1, 0)
    header += _bytes(ip4(link, SENTINEL), 10, ".") + _bytes(ip4(link), 10, ".") + option
    header = header[:10] + struct.pack("!H", ~fold(header) & 0xffff) + header[12:]
    ethernet = _bytes(mac(link), 16, ":") + _bytes(mac(link, SENTINEL), 16, ":") + b"\x08\x00"
    return ethernet + header + icmp


class Side:
    """One topology, with a packet socket at the hosts' end of every link."""

    def __init__(self, name, topology):
        self.name = name
        self.topology = topology
        self.sockets = {}
        self.partial = {}
        self.frames = []  # (link, frame), as they came
        self._answers = set()
        for link in LINKS:
            s = topology.hosts.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            s.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            s.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            s.setblocking(False)
            s.bind((link, _ETH_P_ALL))
            self.sockets[link] = s
        self._poll = select.poll()
        self._links = {s.fileno(): link for link, s in self.sockets.items()}
        for descriptor in self._links:
            self._poll.register(descriptor, select.POLLIN)

    def close(self):
        for s in (*self.sockets.values(), *self.partial.values()):
            s.close()

    def send(self, link, frame, partial=None):
        """`partial`: (start, offset) of a checksum that is left to the network card."""
        if partial is None:
            self.sockets[link].send(frame)
            return
        if link not in self.partial:
            s = self.topology.hosts.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            s.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            s.bind((link, 0))
            self.partial[link] = s
        self.partial[link].send(struct.pack("<BBHHHH", 1, 0, 0, 0, *partial) + frame)

    def receive(self, timeout):
        """Takes what has arrived, waiting up to `timeout` seconds for the first; False: nothing."""
        ready = self._poll.poll(max(0, timeout * 1000))
        for descriptor, _ in ready:
            link = self._links[descriptor]
            while True:
                try:
                    frame, control, _, _ = self.sockets[link].recvmsg(65536, 256)
                except BlockingIOError:
                    break
                self._take(link, frame, control)
        return bool(ready)

    def _take(self, link, frame, control):
        at = frame.find(_MARK)
        if at > 0:
            # The answer to a sentinel, and not some error that quotes one.
            if frame[at - 8] == 0:
                self._answers.add(struct.unpack_from("!I", frame, at + len(_MARK))[0])
            return
        for level, kind, data in control:
            if level == _SOL_PACKET and kind == _PACKET_AUXDATA:
                if _AUXDATA.unpack(data[:_AUXDATA.size])[0] & _CHECKSUM_NOT_READY:
                    frame = complete_checksum(frame)
        self.frames.append((link, frame))

    def wait_for(self, numbers):
        """Returns whether all these sentinels have been answered."""
        wanted = set(numbers)
        deadline = time.monotonic() + _ANSWER_WITHIN
        while not wanted <= self._answers:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.receive(left)
        self._answers -= wanted
        return True


class Rig:
    def __init__(self, sysctls=None, setup=(), sluice=""):
        """`sluice`: sections of its configuration, as YAML."""
        self._number = 0
        self.sides = []
        self._topologies = []
        try:
            for letter in "ks":
                self._topologies.append(Topology(letter, sysctls, setup))
            self._topologies[1].start_sluice(sluice)
            for name, topology in zip(("kernel", "sluice"), self._topologies):
                self.sides.append(Side(name, topology))
            self.settle("left")
        except BaseException:
            self.close()
            raise
        for side in self.sides:
            side.frames.clear()

    def close(self):
        """Takes all down; returns how Sluice ended."""
        for side in self.sides:
            side.close()
        ended = (0, "")
        for topology in self._topologies:
            if topology.process is not None:
                ended = topology.stop_sluice()
            topology.close()
        return ended

    def settle(self, link):
        """Until all that was sent on `link` before has had its effect in both topologies."""
        self._sentinels([(link, False), (link, True)])
        self._sentinels([(other, False) for other in LINKS if other != link])

    def _sentinels(self, where):
        numbers = []
        for link, with_option in where:
            self._number += 1
            numbers.append(self._number)
            frame = _sentinel(link, self._number, with_option)
            for side in self.sides:
                side.send(link, frame)
        for side in self.sides:
            if side.wait_for(numbers):
                continue
            process = side.topology.process
            log = side.topology.read_log()[-3000:] if process else ""
            state = f" (exit status {process.poll()})" if process else ""
            pytest.fail(f"the {side.name} side no longer answers{state}\n{log}", pytrace=False)

    def exchange(self, link, frame, partial=None):
        """Sends the frame on both sides; what came out is in side.frames."""
        for side in self.sides:
            while side.receive(0):
                pass
            side.frames.clear()
        for side in self.sides:
            side.send(link, frame, partial)
        self.settle(link)

    def outputs(self, keep_solicitations=False, leave_out=lambda frame: False):
        """Per side: normalised frames by link."""
        result = []
        for side in self.sides:
            by_link = {}
            for link, frame in side.frames:
                if not is_housekeeping(frame, keep_solicitations) and not leave_out(frame):
                    by_link.setdefault(link, []).append(normalise(frame))
            result.append(by_link)
        return result

    def compare(self, name, link, frame, *, partial=None, keep_solicitations=False,
                expect_output=None, key=None, leave_out=lambda frame: False):
        """Fails unless both sides answer the frame in the same way; returns the kernel's answer.

        expect_output: whether anything must come out at all, where the test would be empty without
        knowing. leave_out: tells frames that do not count. key: how outputs are
        compared, where not byte for byte.
        """
        key = key or (lambda by_link: by_link)
        self.exchange(link, frame, partial)
        kernel, sluice = self.outputs(keep_solicitations, leave_out)
        deadline = time.monotonic() + _GRACE
        while key(kernel) != key(sluice) and time.monotonic() < deadline:
            for side in self.sides:
                side.receive(0.02)
            kernel, sluice = self.outputs(keep_solicitations, leave_out)
        if key(kernel) != key(sluice):
            pytest.fail(explain(name, link, frame, kernel, sluice), pytrace=False)
        if expect_output is not None and expect_output != bool(kernel):
            pytest.fail(explain(f"{name}: expected {'an' if expect_output else 'no'} output", link,
                                frame, kernel, sluice), pytrace=False)
        return kernel


def explain(name, link, frame, kernel, sluice):
    lines = [f"{name}: the two sides differ", f"  in by {link}: {describe(frame)}"]
    lines += hexdump(frame[:192], "      ") + (["      ..."] if len(frame) > 192 else [])
    for where in LINKS:
        ours, theirs = sluice.get(where, []), kernel.get(where, [])
        for i in range(max(len(ours), len(theirs))):
            expected = theirs[i] if i < len(theirs) else None
            seen = ours[i] if i < len(ours) else None
            lines.append(f"  out by {where}, frame {i + 1}: "
                         f"{'the same' if expected == seen else 'DIFFERENT'}")
            lines.append(f"    kernel: {describe(expected)}")
            lines.append(f"    sluice: {describe(seen)}")
            if expected != seen:
                lines += _difference(expected, seen)
    if not kernel and not sluice:
        lines.append("  nothing came out of either")
    return "\n".join(lines)


def _difference(expected, seen):
    if expected is None or seen is None:
        mark = "K" if seen is None else "S"
        return hexdump(expected if seen is None else seen, f"    {mark} ")
    lines = []
    for k, s in zip(hexdump(expected, "", len(seen)), hexdump(seen, "", len(expected))):
        if k != s:
            lines += [f"    K {k}", f"    S {s}"]
        elif len(lines) < 24:
            lines.append(f"      {k}")
    return lines
