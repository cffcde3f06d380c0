"""One router with its hosts: two namespaces, veth pairs with the default offloads.

Two of these with the same addresses, MACs, routes and sysctls make an experiment; in one of them
Sluice runs. The hosts have no IP of their own: what they say and hear is the harness' business.
"""

import itertools
import os
import signal
import subprocess
import tempfile

from addresses import (HOSTS, LINKS, MTU, SENDERS, SERVED, far4, far6, ip4, ip6, link_local, mac)
from netns import Namespace, run

_COUNT = itertools.count(1)

# The behaviour under test, not the limits, unless a test sets others. What the kernel does not
# keep per namespace (net.ipv4.route.error_*) cannot be set here: see fresh_sender() in frames.py.
SYSCTLS = {
    "ipv4/ip_forward": 1,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
    "ipv4/icmp_ratelimit": 0,
    "ipv4/icmp_msgs_per_sec": 1000000,
    "ipv4/icmp_msgs_burst": 100000,
    "ipv4/ping_group_range": "1 0",
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/addr_gen_mode": 1,
    "ipv6/icmp/ratelimit": 0,
    # What is never completed would be complained about in the middle of another test.
    "ipv4/ipfrag_time": 3600,
    "ipv6/ip6frag_time": 3600,
    # Answers for anycast addresses would come after a random time.
    **{f"ipv6/neigh/{link}/proxy_delay": 0 for link in LINKS},
}


def base_setup():
    """The router's own configuration, as ip(8) lines."""
    lines = []
    for link in LINKS:
        lines += [
            f"link set {link} mtu {MTU[link]} up",
            f"addr add {ip4(link)}/24 brd + dev {link}",
            f"addr add {ip6(link)}/64 dev {link} nodad",
            f"addr add {link_local(link)}/64 dev {link} nodad",
        ]
        for host in HOSTS + (SENDERS if link == "left" else ()):
            for address in (ip4(link, host), ip6(link, host), link_local(link, host)):
                lines.append(f"neigh add {address} dev {link} lladdr {mac(link, host)} "
                             "nud permanent")
        lines += [
            f"route add {far4(link, 0)}/16 via {ip4(link, 2)}",
            f"route add {far6(link, 0)}/48 via {ip6(link, 2)}",
        ]
    return lines


class Topology:
    def __init__(self, letter, sysctls=None, setup=(), napi=False):
        """`setup`: further ip(8) lines for the router, after the base. `napi`: the hosts' ends of the
        links receive by NAPI, so that XDP can send to them."""
        prefix = f"diff-{os.getpid()}-{next(_COUNT)}-{letter}"
        self.process = None
        self._opened = []
        try:
            self.router = self._namespace(f"{prefix}-router")
            self.hosts = self._namespace(f"{prefix}-hosts")
            self._build({**SYSCTLS, **(sysctls or {})}, setup, napi)
        except BaseException:
            self.close()
            raise

    def _namespace(self, name):
        namespace = Namespace(name)
        self._opened.append(namespace)
        return namespace

    def _build(self, sysctls, setup, napi):
        self.hosts.sysctl({"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1})
        self.router.sysctl(
            {name: value for name, value in sysctls.items() if not _is_of_link(name)})
        run("ip", "-batch", "-", stdin="".join(
            f"link add {link} address {mac(link)} netns {self.router.name} type veth "
            f"peer name {link} address {mac(link, 2)} netns {self.hosts.name}\n"
            for link in LINKS))
        self.hosts.ip([f"link set {link} arp off up" for link in LINKS])
        for link in LINKS if napi else ():
            run("ip", "netns", "exec", self.hosts.name, "ethtool", "-K", link, "gro", "on")
        self.router.ip(["link set lo up", *base_setup(), *setup])
        # An address that appears sets forwarding of its interface anew.
        self.router.sysctl({name: value for name, value in sysctls.items() if _is_of_link(name)})

    def start_sluice(self, more=""):
        """`more`: sections of the configuration, as YAML."""
        self._directory = tempfile.TemporaryDirectory(prefix="sluice-diff-")
        work = self._directory.name
        config = os.path.join(work, "sluice.yaml")
        control = self.control = os.path.join(work, "sluice.sock")
        self.log = os.path.join(work, "log")
        with open(config, "w", encoding="ascii") as file:
            file.write("interfaces:\n" + "".join(f"  - name: {link}\n" for link in SERVED) + more)
        program = os.environ["SLUICE_BIN"]
        with open(self.log, "w", encoding="ascii") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.router.name, program, "--control", control, "run",
                 "--config", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            run(program, "--control", control, "wait-ready", "--timeout", "30")
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self.read_log()}") from error

    def read_log(self):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop_sluice(self):
        """Ends it and tells how it ended: the exit status and its last words."""
        if self.process is None:
            return 0, ""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process = None
        said = self.read_log()[-4000:]
        self._directory.cleanup()
        return status, said

    def close(self):
        self.stop_sluice()
        while self._opened:
            self._opened.pop().close()


def _is_of_link(name):
    return any(f"/{link}/" in name for link in LINKS)
