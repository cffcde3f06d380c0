"""Who is who in both topologies. Names of links are the names of the router's interfaces.

    hosts --left-- router --right-- hosts
                     | \\--wan------ hosts   (MTU 1400)
                     \\----other---- hosts   (Sluice does not serve it)

On link n the router is 10.n.0.1/24, fd00:n::1/64 and fe80::n:1, and host k is 10.n.0.k,
fd00:n::k and fe80::n:k with the MAC 02:00:00:00:0n:<k>. Host 2 is also the gateway to
10.10n.0.0/16 and fd00:10n::/48. Host 250 is the harness' own (sentinels).
"""

LINKS = {"left": 1, "right": 2, "wan": 3, "other": 4}
SERVED = ("left", "right", "wan")
MTU = {"left": 1500, "right": 1500, "wan": 1400, "other": 1500}
# Hosts with a permanent neighbour entry; the ones from 20 on, on the left only, for what is limited
# by the sender's address.
HOSTS = (*range(2, 10), 250)
SENDERS = tuple(range(20, 60))
SENTINEL = 250


def mac(link, host=1):
    return f"02:00:00:00:{LINKS[link]:02x}:{host:02x}"


def ip4(link, host=1):
    return f"10.{LINKS[link]}.0.{host}"


def ip6(link, host=1):
    return f"fd00:{LINKS[link]}::{host:x}"


def link_local(link, host=1):
    return f"fe80::{LINKS[link]}:{host:x}"


def far4(link, host=1, net=0):
    """Behind the gateway (host 2) of the link."""
    return f"10.10{LINKS[link]}.{net}.{host}"


def far6(link, host=1):
    return f"fd00:10{LINKS[link]}::{host:x}"


ROUTER4 = frozenset(ip4(link) for link in LINKS)
ROUTER6 = frozenset(ip6(link) for link in LINKS) | frozenset(link_local(link) for link in LINKS)
