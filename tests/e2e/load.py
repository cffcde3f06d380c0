"""A flow at full speed, every packet of which is accounted for: what the tests of the flow tier run
while something changes.

    load = Load(rig, "h1", {1: "h2", 2: "h3"}, address)    both hosts have the address
    load.wait(1000)                                        so many more have come back
    bound = load.bound()                                   from this number on, none has been sent yet
    load.fates(bound, load.bound())                        bytes: by number, the server that echoed it
"""

import os
import struct

from load_ends import ARRIVED, FATES, NEXT, NUMBERS, STOP, state_of
from rig import wait_for

_ENDS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "load_ends.py")
WINDOW = 128


def carried(sluice):
    """Packets since the start (by XDP, left to workers and the kernel)."""
    metrics = sluice.metrics()
    by_xdp = metrics.get("sluice_xdp_packets_total", reason="flow")
    return by_xdp, metrics.get("sluice_xdp_packets_total") - by_xdp


def wait_until_carried(sluice, load, seconds=10):
    """Until hardly anything but the load's packets goes through XDP, both ways."""
    last = []
    def is_carried():
        before = carried(sluice)
        load.wait(500)
        after = carried(sluice)
        last[:] = [after[0] - before[0], after[1] - before[1]]
        return last[0] >= 900 and last[1] < 50
    wait_for(is_carried, lambda: f"XDP has carried {last[0]} and others {last[1]}: "
                                 f"{sluice.show('status')['tiers']}\n{sluice.log()}", seconds)


def quiet(rig):
    """Neighbours that nobody asks for: all that is counted is what a test sends."""
    for i, host in enumerate(rig.hosts, 1):
        outer = rig.link("eth0", host)["address"]
        inner = rig.link(host)["address"]
        for address in (f"10.77.{i}", f"fd77:0:0:{i}:"):
            dot = "." if "." in address else ":"
            rig.batch("router", f"neigh replace {address}{dot}2 lladdr {outer} nud permanent dev {host}")
            rig.batch(host, f"neigh replace {address}{dot}1 lladdr {inner} nud permanent dev eth0")


class Load:
    _ports = iter(range(7000, 8000))

    def __init__(self, rig, client, servers, address, size=200, window=WINDOW, port=None,
                 flows=1, server_addresses=None):
        """`servers`: hosts by number, 1 to 255. `flows`: source ports that take turns.
        `server_addresses`: by host, where a proxy is what has the address."""
        self.rig, self.address = rig, address
        self.port = port or next(self._ports)
        self.source_port = self.port + 10000
        self.size = size
        self._state, self._servers = None, {}
        for number, host in servers.items():
            path, self._servers[number] = self._make(f"{host}-{number}")
            at = server_addresses[host] if server_addresses else address
            rig.serve(host, self.port, "/usr/bin/python3", "-B", _ENDS, "server", path, at,
                      str(self.port), str(number), kind="udp")
        path, self._state = self._make(client)
        self.process = rig.start(client, "/usr/bin/python3", "-B", _ENDS, "client", path, address,
                                 str(self.port), str(self.source_port), str(flows), str(size),
                                 str(window))
        self.wait(1)

    def _make(self, name):
        path = self.rig.path(f"load-{self.port}-{name}")
        with open(path, "wb") as file:
            file.truncate(FATES + NUMBERS)
        return path, state_of(path)

    def bound(self):
        """No packet with this number or a higher one has been sent yet."""
        return struct.unpack_from("Q", self._state, NEXT)[0] + 1

    def arrived(self):
        """How many have come back."""
        return struct.unpack_from("Q", self._state, ARRIVED)[0]

    def wait(self, more, seconds=20):
        """Until so many more have come back."""
        goal = self.arrived() + more
        wait_for(lambda: self.arrived() >= goal or self.process.poll() not in (None, 0),
                 lambda: f"{self.arrived()} of {goal} packets have come back", seconds)
        assert self.process.poll() in (None, 0), self.rig.read_log(self.process)

    def wait_sent(self, more):
        goal = self.bound() + more
        wait_for(lambda: self.bound() >= goal, "packets are sent")

    def fates(self, first, end):
        """By number, the server whose echo has come back; 0: none."""
        return self._state[FATES + first:FATES + end]

    def heard(self, server, first, end):
        """By number, which of its senders the server heard it from; 0: it did not hear it."""
        return self._servers[server][FATES + first:FATES + end]

    def heard_by_anybody(self, first, end):
        """Numbers that reached a server."""
        return [first + i for i, places in enumerate(zip(*(
            self.heard(server, first, end) for server in self._servers))) if any(places)]

    def lost(self, first, end):
        """Numbers that no echo has come back of."""
        return [first + i for i, fate in enumerate(self.fates(first, end)) if fate == 0]

    def nothing_lost(self, first, but=0):
        """Everything from that number on has come back, or is on its way back; `but` so many."""
        end = self.bound()
        self.wait(2 * WINDOW)
        lost = self.lost(first, end)
        assert len(lost) <= but, f"{len(lost)} packets of {end - first} were lost: {lost[:10]}"

    def stop(self):
        """Sends no more; returns how many were sent when all is over."""
        self._state[STOP] = 1
        assert self.process.wait(timeout=10) == 0, self.rig.read_log(self.process)
        return self.bound() - 1

    def flood(self, host, source, total):
        """Starts a flood of one-packet flows from a host to the same address."""
        gateway = self.rig.link(host)["address"]
        return self.rig.start(host, "/usr/bin/python3", "-B", _ENDS, "flood", "eth0", gateway,
                              source, self.address, str(total))
