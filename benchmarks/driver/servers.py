"""Servers under test: Sluice's services, and haproxy and dnsdist on the kernel, each on core 1 with the
NAPIs of its interfaces. Clients reach them at FRONT, their backend is at BACK."""

import os
import time

import rig
from devices import Device, SluiceDevice
from rig import DUT_CPU, DUT_NS, IN_IF, OUT_IF, RigError, in_namespace, run, steer

FRONT, BACK = "198.18.0.1", rig.NEXT_HOP[4]
# By which the clients ask, and where the backend listens.
HTTP, HTTP_BACK, DNS, SESSIONS, IPERF = 80, 8080, 53, 54, 5201
_PROXIES = {"web": (HTTP, HTTP_BACK), "bulk": (IPERF, IPERF)}
_READY_SECONDS = 10
# A veth wakes its NAPI for every frame, where a network card waits for a while (`ethtool -c`: rx-usecs,
# 50 with many drivers). So do these.
MODERATION_NS = 50000


def moderate(namespace, interface, always=False):
    """`always`: the timer polls it also when nothing came before."""
    rig.sysfs(namespace, interface, "napi_defer_hard_irqs", 1000000000 if always else 1)
    rig.sysfs(namespace, interface, "gro_flush_timeout", MODERATION_NS)


def _no_segments(interface):
    """No segment of 64 KB leaves where there is no network card to cut it; and only from such an
    interface does a veth hand frames to its peer's NAPI, else to the core that sends."""
    run(*in_namespace(DUT_NS, "ethtool", "-K", interface, "tso", "off"))


class SluiceServer(SluiceDevice):
    """As it comes: `flow_offload` and limits are the defaults."""

    limits = ""
    moderated = True

    @property
    def settings(self):
        proxies = "".join(
            f"  - tcp_proxy: {name}\n    listen: {FRONT}:{port}\n    backends: [{BACK}:{back}]\n"
            for name, (port, back) in _PROXIES.items())
        # The first as config/dns-forwarder.yaml has it.
        return (f"{self.limits}services:\n{proxies}  - udp_proxy: dns\n    listen: {FRONT}:{DNS}\n"
                f"    backends: [{BACK}:{DNS}]\n    replies: 1\n    idle_timeout: 10s\n"
                "    max_connections: 8192\n"
                f"  - udp_proxy: sessions\n    listen: {FRONT}:{SESSIONS}\n"
                f"    backends: [{BACK}:{DNS}]\n")

    def arrange(self, _, moderated):
        """Whatever the hosts' offloads: with XDP on the interfaces there are none."""
        self.moderated = moderated

    def start(self):
        super().start()
        for interface in (IN_IF, OUT_IF):
            _no_segments(interface)
            if self.moderated:
                moderate(DUT_NS, interface)


class KernelServer(Device):
    """A program on the kernel's sockets. What its interfaces receive is processed on its core: by NAPIs,
    threads, which put segments together (GRO) as on a network card. With the hosts' offloads on,
    segments come as large as these made them and pass by a veth's NAPI, so they are steered."""

    port, flag = HTTP, "-Hltn"

    def __init__(self, bench):
        super().__init__(bench)
        self._offloads, self._moderated = False, True

    def arrange(self, offloads, moderated):
        self._offloads, self._moderated = offloads, moderated

    def start(self):
        for interface in (IN_IF, OUT_IF):
            if self._offloads:
                steer(DUT_NS, interface, DUT_CPU)
                continue
            run(*in_namespace(DUT_NS, "ethtool", "-K", interface, "gro", "on"))
            _no_segments(interface)
        if not self._offloads:
            rig.confine_napi((IN_IF, OUT_IF))
            for interface in (IN_IF, OUT_IF) if self._moderated else ():
                moderate(DUT_NS, interface)
        log = os.path.join(self.bench.work, f"{self.name}.log")
        with open(log, "a", encoding="utf-8") as output:
            self._spawn(*self.command(), stdout=output, stderr=output)
        end = time.monotonic() + _READY_SECONDS
        while not run(*in_namespace(DUT_NS, "ss", self.flag, f"sport = :{self.port}")).strip():
            if self.process.poll() is not None or time.monotonic() > end:
                with open(log, encoding="utf-8", errors="replace") as said:
                    raise RigError(f"{self.name} did not start: {said.read()[-1000:]}")
            time.sleep(0.02)
        if rig.realtime:
            for task in self.own_threads():
                rig.make_realtime(task, rig.WORKER_PRIORITY)

    def command(self):
        raise NotImplementedError

    def _write(self, name, text):
        path = os.path.join(self.bench.work, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path


class Haproxy(KernelServer):
    """One thread, TCP mode, no logs; requests and first answers go with the handshake's ACKs."""

    name = "haproxy"
    splice = ""

    def command(self):
        proxies = "".join(f"listen {name}\n    bind {FRONT}:{port} backlog 65535\n"
                          f"    server one {BACK}:{back}\n"
                          for name, (port, back) in _PROXIES.items())
        config = self._write("haproxy.cfg", (
            "global\n    nbthread 1\n    maxconn 9000\n    maxpipes 64\n"
            f"defaults\n    mode tcp\n    maxconn 9000\n{self.splice}"
            "    option tcp-smart-accept\n    option tcp-smart-connect\n"
            "    timeout connect 3s\n    timeout client 5m\n    timeout server 5m\n" + proxies))
        return "/usr/sbin/haproxy", "-db", "-f", config


class HaproxySplice(Haproxy):
    """Data goes from socket to socket inside the kernel."""

    name = "haproxy-splice"
    splice = "    option splice-request\n    option splice-response\n    option splice-auto\n"


class Dnsdist(KernelServer):
    """No cache, no rules, no health checks, no look-ups of its own; batches of 32 datagrams."""

    name = "dnsdist"
    port, flag = DNS, "-Hlun"

    def command(self):
        config = self._write("dnsdist.conf", (
            f"setSecurityPollSuffix('')\nsetLocal('{FRONT}:{DNS}')\nsetACL({{'0.0.0.0/0'}})\n"
            "setUDPMultipleMessagesVectorSize(32)\nsetMaxUDPOutstanding(65535)\n"
            f"newServer({{address='{BACK}:{DNS}', name='one'}}):setUp()\n"))
        return "/usr/bin/dnsdist", "--supervised", "--disable-syslog", "-C", config
