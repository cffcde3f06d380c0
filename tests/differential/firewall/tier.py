"""The flow tier beside the kernel: bringing flows to the state in which XDP carries them, and
telling whether it did.

    tier = Tier(twins, flows)
    tier.promote(flow, ...)                     until XDP carries both directions
    tier.step("what", 1, lambda: flow.send())   one more packet has gone through XDP, the outputs are
                                                the same
"""

import time

import pytest

import wire
from flows import BACK, FORTH
from twins import SluiceTwin

_WITHIN = 20.0  # connections of UDP are assured after two seconds


def speak(flow, direction):
    """One packet with data that XDP would carry."""
    if flow.protocol == wire.TCP:
        flow.segment(wire.ACK | wire.PSH, direction, 20)
    else:
        flow.send(direction, size=60)


class Tier:
    def __init__(self, twins, flows=None, enabled=True):
        """`flows`: the round's. `enabled`: else no packet must go through XDP."""
        self.twins, self.flows = twins, flows
        self.enabled = enabled and isinstance(twins.other, SluiceTwin)
        self._seen = isinstance(twins.other, SluiceTwin)

    def carried(self):
        """Packets that XDP has carried."""
        if not self._seen:
            return 0
        return int(self.twins.other.metric("sluice_xdp_packets_total", reason="flow"))

    def promote(self, *flows):
        """Until XDP carries both directions of all of them, and all agree that it does."""
        def speak_once():
            for flow in flows:
                speak(flow, FORTH)
            for flow in flows:
                speak(flow, BACK)
        self._until_carried(speak_once, 2 * len(flows))
        if self.enabled:
            names = {(int(flow.protocol), flow.client, flow.server) for flow in flows}
            shown = {_name(flow): flow["status"] for flow in self.twins.other.show("flows")["flows"]}
            assert all("OFFLOAD" in shown[name] for name in names), shown

    def promote_routes(self, speak_once, packets):
        """Until XDP carries all of the packets that this sends."""
        self._until_carried(speak_once, packets)

    def _until_carried(self, speak_once, packets):
        deadline = time.monotonic() + _WITHIN
        for attempt in range(1000):
            before = self.carried()
            speak_once()
            self.twins.finish()
            if self.carried() - before == packets or (not self.enabled and attempt >= 10):
                break
            if time.monotonic() > deadline:
                flows = "\n".join(flow["conntrack"]
                                  for flow in self.twins.other.show("flows")["flows"])
                pytest.fail(f"XDP carries {self.carried() - before} of {packets} packets:\n"
                            f"{self.twins.other.show('status')['tiers']}\n{flows}", pytrace=False)
            time.sleep(0.02)
        self.twins.check("on the way into the flow tier", counters=False)
        self._forget()

    def step(self, what, packets, action, counters=False):
        """XDP carries so many of the packets that `action` sends, and both sides do the same."""
        before = self.carried()
        action()
        self.twins.check(what, counters=counters)
        grown = self.carried() - before
        wanted = packets if self.enabled else 0
        if self._seen and grown != wanted:
            pytest.fail(f"{what}: XDP has carried {grown} packets, not {wanted}", pytrace=False)
        self._forget()

    def _forget(self):
        if self.flows is not None:
            self.flows.look()
        self.twins.forget()


def _name(shown):
    """(protocol, client, server) of a flow as `show flows` has it."""
    ends = shown["original"]
    return (shown["protocol_number"], (ends["source"], ends["source_port"]),
            (ends["destination"], ends["destination_port"]))
