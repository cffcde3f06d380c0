"""Who may include whom in userspace/: the one table, which userspace/README.md shows.

A folder may include its own headers and those of the folders named here, nothing else; external
libraries likewise. "C++" below stands for the standard library and the C library's pure parts
(PURE), without input or output, clocks or locks.
"""

from typing import NamedTuple


class Layer(NamedTuple):
    folder: str           # below userspace/; its sub-folders are layers of their own
    may_include: tuple    # folders, or single headers
    libraries: tuple      # keys of LIBRARIES
    duty: str


STAGES = ("stages/parse", "stages/defrag", "stages/conntrack", "stages/filter", "stages/nat",
          "stages/route", "stages/icmp", "stages/reject", "stages/fragment", "stages/neighbor",
          "stages/rewrite")
STAGE_BASE = ("tables", "tables/ruleset", "packet", "wire", "base")

LAYERS = (
    Layer("base", (), ("inet_ntop",), "strong types, reasons, counters"),
    Layer("wire", ("base",), (), "header views and checksums"),
    Layer("packet", ("wire", "base"), ("mmap",), "frames, packets, verdicts, the outbox"),
    Layer("tables", ("wire", "base", "bpf/include/offload_abi.h"), ("absl", "mmap", "thread"),
          "FIB, routes, snapshot, timers"),
    Layer("tables/ruleset", ("tables", "wire", "base"), ("absl",), "compiled rules and sets"),
    *(Layer(stage, STAGE_BASE, (), "one step of the pipeline; never another stage")
      for stage in STAGES),
    Layer("dataplane",
          STAGES + STAGE_BASE +
          ("transport", "transport/common", "transport/tcp", "transport/udp", "io/port.h"),
          (), "the pipeline and the worker"),
    Layer("transport/common", ("packet", "wire", "base", "bpf/include/offload_abi.h"), (),
          "endpoints, what the transport stack wants of IP"),
    Layer("transport/congestion", ("wire", "base"), (), "CUBIC, NewReno, HyStart++"),
    Layer("transport/tcp",
          ("transport/common", "transport/congestion", "tables", "packet", "wire", "base", "bpf/include/offload_abi.h"), (),
          "TCP: connections and listeners"),
    Layer("transport/udp", ("transport/common", "packet", "wire", "base"), (), "UDP sockets"),
    Layer("transport",
          ("transport/common", "transport/tcp", "transport/udp", "packet", "wire", "base"), (),
          "sockets for programs on a worker"),
    Layer("services",
          ("transport", "transport/common", "transport/tcp", "transport/udp", "tables", "packet",
           "wire", "base"), ("http-parser",),
          "proxies, HTTP and test endpoints on the transport stack"),
    Layer("examples", ("transport", "transport/common", "transport/tcp", "base"), (),
          "programs on the transport stack, to copy from"),
    Layer("io", ("packet", "base"), (), "what a port is"),
    Layer("io/sim", ("packet", "base", "io/port.h"), (), "simulated links"),
    Layer("io/af_xdp",
          ("packet", "base", "io/port.h", "tables/early_program.h", "tables/offload.h",
           "bpf/include", "sluice_bpf"),
          ("absl", "system", "libbpf", "libxdp"), "sockets, XDP programs, the punt device"),
    Layer("control", ("tables", "base"), ("absl", "system", "libnl", "yaml-cpp"),
          "configuration"),
    Layer("control/rib", ("tables", "base"), ("absl",), "the kernel's routes, and what wins"),
    Layer("control/netlink", ("control/rib", "base"), ("absl", "system", "libnl"),
          "messages to and from the kernel"),
    Layer("control/netfilter", ("control/netlink", "base"),
          ("absl", "system"), "is there another firewall"),
    Layer("control/ruleset", ("control/nft", "tables/ruleset", "tables", "base"), ("absl",),
          "the compiler of rules"),
    Layer("control/nft",
          ("control/netlink", "control/netfilter/firewall_presence.h", "base"),
          ("absl", "system", "libnftables"), "the kernel's nftables ruleset, followed"),
    Layer("control/early", ("control/nft", "tables", "base"), ("absl", "system"),
          "which rules XDP can run"),
    Layer("control/mirror",
          ("control/netfilter", "control/netlink", "control/rib", "tables", "base"),
          ("absl", "system"), "the kernel's state, followed"),
    Layer("control/conntrack_sync", ("control/netlink", "tables", "wire", "base"),
          ("absl", "system"), "connections from and to the kernel's conntrack table"),
    Layer("control/packet_text", ("wire", "base"), ("absl",),
          "packets described in nft's words"),
    Layer("telemetry", ("base",),
          ("absl", "system", "httplib", "nlohmann-json", "prometheus-cpp"),
          "metrics, tables, JSON"),
    Layer("app", ("*",),
          ("absl", "system", "CLI11", "fmt", "httplib", "libpcap", "libsystemd",
           "nlohmann-json", "spdlog"),
          "the program: threads, signals, servers"),
)

# External includes, as regular expressions of what stands between the brackets or quotes.
LIBRARIES = {
    "absl": r"absl/.*",
    "CLI11": r"CLI/.*",
    "fmt": r"fmt/.*",
    "http-parser": r"http_parser\.h",
    "httplib": r"httplib\.h",
    "libbpf": r"bpf/(bpf|libbpf)\.h",
    "libnftables": r"nftables/libnftables\.h",
    "libpcap": r"pcap/pcap\.h",
    "libnl": r"netlink/.*",
    "libsystemd": r"systemd/sd-daemon\.h",
    "libxdp": r"xdp/(xsk|libxdp)\.h",
    "nlohmann-json": r"nlohmann/json(_fwd)?\.hpp",
    "prometheus-cpp": r"prometheus/.*",
    "spdlog": r"spdlog/.*",
    "yaml-cpp": r"yaml-cpp/.*",
    # Text of addresses; memory without a file; yielding while a worker finishes.
    "inet_ntop": r"arpa/inet\.h",
    "mmap": r"sys/mman\.h",
    "thread": r"thread",
    # The kernel and the C library, and the standard library's input, output, clocks and locks.
    "system": r"(linux|sys|net|netinet|arpa)/.*\.h|\w+\.h|[a-z_]+",
}

# What every layer may use of the standard library: nothing that reads a clock, takes a lock, starts
# a thread or does input or output.
PURE = frozenset("""
    algorithm array atomic bit bitset cassert cerrno charconv cmath compare concepts cstddef cstdint cstdio
    cstdlib cstring deque exception functional initializer_list iterator limits list map memory new
    numeric optional queue set span string string_view tuple type_traits unordered_map
    unordered_set utility variant vector
""".split())


def layer_of(folder):
    """The layer of a folder below userspace/, or None."""
    for layer in LAYERS:
        if layer.folder == folder:
            return layer
    return None


def may_include(layer, header):
    """Whether the layer may include this header of ours (a path below userspace/ or the top)."""
    folder = header.rpartition("/")[0]
    return "*" in layer.may_include or folder == layer.folder or header in layer.may_include or \
        folder in layer.may_include
