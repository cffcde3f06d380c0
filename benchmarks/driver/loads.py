"""Routes and destinations: a table with the Internet's mix of prefix lengths, always the same."""

import dataclasses
import ipaddress
import os
import random

from rig import DUT_NS, NEXT_HOP, OUT_IF, run

# Share of each prefix length, roughly that of the public tables.
LENGTHS = {4: {24: 60, 23: 10, 22: 12, 21: 4, 20: 5, 19: 3, 18: 2, 17: 1, 16: 3},
           6: {48: 48, 47: 2, 46: 4, 44: 11, 40: 9, 36: 5, 32: 17, 29: 4}}
BITS = {4: 32, 6: 128}
# First octets or words that hold special ranges.
SPECIAL = {4: {0, 10, 100, 127, 169, 172, 192, 198, 203}, 6: {0x2001, 0x2002}}


@dataclasses.dataclass(frozen=True)
class Load:
    family: int
    destinations: int
    routes: int
    size: int = 64
    rate: int = 0
    targets: str = ""

    @property
    def name(self):
        return f"ipv{self.family}-{self.destinations}dst-{self.routes}routes"


def _random_prefix(rng, family):
    length = rng.choices(list(LENGTHS[family]), LENGTHS[family].values())[0]
    if family == 4:
        value = rng.choice([n for n in range(1, 224) if n not in SPECIAL[4]]) << 24
        value |= rng.getrandbits(24)
    else:
        first = rng.randrange(0x2000, 0x3000)
        while first in SPECIAL[6]:
            first = rng.randrange(0x2000, 0x3000)
        value = first << 112 | rng.getrandbits(112)
    shift = BITS[family] - length
    return value >> shift << shift, length


def make_routes(family, count):
    rng = random.Random(count * 10 + family)
    routes = {}
    while len(routes) < count:
        routes[_random_prefix(rng, family)] = None
    return list(routes)


def make_targets(family, routes, count):
    """Addresses spread evenly over the routes, in no order a cache could like."""
    rng = random.Random(count)
    chosen = [routes[i * len(routes) // count] for i in range(count)]
    rng.shuffle(chosen)
    address = ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address
    # Neither the first nor the last address of a prefix: those may mean something.
    return [str(address(value + rng.randrange(1, (1 << (BITS[family] - length)) - 1)))
            for value, length in chosen]


def install(load, work):
    """Replaces the device's routes by those of the load; returns the load with its targets."""
    flag = f"-{load.family}"
    run("ip", "-n", DUT_NS, flag, "route", "flush", "proto", "static")
    address = ipaddress.IPv4Address if load.family == 4 else ipaddress.IPv6Address
    routes = make_routes(load.family, load.routes)
    batch = "".join(
        f"route add {address(value)}/{length} via {NEXT_HOP[load.family]} dev {OUT_IF} "
        "proto static\n" for value, length in routes)
    run("ip", "-n", DUT_NS, flag, "-batch", "-", text_input=batch)
    path = os.path.join(work, load.name + ".txt")
    with open(path, "w", encoding="ascii") as file:
        file.write("\n".join(make_targets(load.family, routes, load.destinations)) + "\n")
    return dataclasses.replace(load, targets=path)


def remove(family):
    run("ip", "-n", DUT_NS, f"-{family}", "route", "flush", "proto", "static")
