"""The ends of the rig as hosts with programs on them, instead of a generator and a sink: a client
behind the device's masquerade, and a server outside. Their programs and receive processing run on
core 0."""

import rig
from rig import (DUT_NS, GEN_IF, GEN_NS, GROUP_NICE, IN_IF, MACS, OUT_IF, RIG_CPU, SINK_IF, SINK_NS,
                 in_namespace, run, steer, sysfs)

CLIENT, SERVER = "10.0.0.2", rig.NEXT_HOP[4]
_ENDS = ((GEN_NS, GEN_IF, f"{rig.SOURCE[4]}/24", "198.18.0.1", IN_IF),
         (SINK_NS, SINK_IF, f"{SERVER}/24", "198.18.1.1", OUT_IF))


class Hosts:
    """`gro`: the hosts' interfaces have GRO on, and with it a NAPI, which a veth needs for frames
    that XDP redirects. It runs where the device sends, and what it has put together is received on
    core 0. `threads`: as threads on core 0, and without segmentation offload, so that what a host
    sends goes through the NAPI of the device, whichever that is. Otherwise offloads are as they
    come."""

    def __init__(self, gro, threads=False):
        self.gro, self.threads = gro, threads

    def __enter__(self):
        for namespace, interface, address, gateway, peer in _ENDS:
            run("ip", "-n", namespace, "addr", "add", address, "dev", interface)
            run("ip", "-n", namespace, "neigh", "replace", gateway, "lladdr", MACS[peer], "dev",
                interface, "nud", "permanent")
            if self.gro:
                run(*in_namespace(namespace, "ethtool", "-K", interface, "gro", "on"))
            if self.threads:
                rig.confine_napi([interface], GROUP_NICE, namespace, RIG_CPU)
                self._segmentation(namespace, interface, "off")
            steer(namespace, interface, None if self.threads else RIG_CPU)
        run("ip", "-n", GEN_NS, "addr", "add", f"{CLIENT}/32", "dev", "lo")
        run("ip", "-n", GEN_NS, "route", "add", "default", "via", "198.18.0.1", "src", CLIENT)
        # What the kernel knows of the hosts' sizes must not last from one device to the next.
        run("ip", "-n", DUT_NS, "tcp_metrics", "flush", check=False)
        return self

    def __exit__(self, *_):
        run("ip", "-n", GEN_NS, "route", "del", "default", check=False)
        run("ip", "-n", GEN_NS, "addr", "del", f"{CLIENT}/32", "dev", "lo", check=False)
        for namespace, interface, address, _, _ in _ENDS:
            run("ip", "-n", namespace, "addr", "del", address, "dev", interface, check=False)
            if self.threads:
                sysfs(namespace, interface, "threaded", 0)
                self._segmentation(namespace, interface, "on")
            if self.gro:
                run(*in_namespace(namespace, "ethtool", "-K", interface, "gro", "off"))
            steer(namespace, interface, None)

    @staticmethod
    def _segmentation(namespace, interface, state):
        # Beside an XDP program it is off, and cannot be had.
        run(*in_namespace(namespace, "ethtool", "-K", interface, "tso", state), check=False)
