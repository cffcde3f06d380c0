"""Runs a scenario (generator.py) through both routers, and makes one that fails smaller."""

import copy
import json
import re

import compare
import wire
from addresses import ip4, ip6
from flows import Flows
from nft import NftError
from twins import GRACE, far

_ADDRESS = re.compile(r"<(\w+)\.(\d+)/([46])>")


def ruleset_text(scenario, number):
    """nft's text of the scenario's ruleset, with the addresses of this round."""
    lines = []
    for table in scenario["tables"]:
        lines.append(f"table {table['family']} {table['name']} {{")
        lines += [f"  {text}" for text in table["objects"]]
        # What is jumped to comes first.
        for chain in sorted(table["chains"], key=lambda chain: chain["base"] is not None):
            lines.append(f"  chain {chain['name']} {{")
            lines += [f"    {text}" for text in ([chain["base"]] if chain["base"] else [])]
            lines += ["    " + " ".join(rule) for rule in chain["rules"]]
            lines.append("  }")
        lines.append("}")
    return _ADDRESS.sub(lambda m: far(m[1], number, int(m[2]), int(m[3])), "\n".join(lines)) + "\n"


def run(twins, scenario, grace=GRACE):
    """What differs, as lines; empty when both did the same. `grace`: see Twins.differences."""
    twins.load(ruleset_text(scenario, twins.round + 1))
    flows = Flows(twins)
    made = [_flow(twins, flows, flow) for flow in scenario["flows"]]
    for event in scenario["events"]:
        _do(made[event["flow"]], event, twins.round)
    return twins.differences(compare.ANY_PORT, grace=grace)


def _flow(twins, flows, flow):
    family = flow["family"]
    if flow["destination"]:
        destination = far(flow["out"], twins.round, flow["destination"], family)
    else:
        destination = (ip4 if family == 4 else ip6)(flow["out"])
    return flows.add(flow["protocol"], far(flow["in"], twins.round, flow["source"], family),
                     destination, flow["sport"], flow["dport"])


def _do(flow, event, number):
    ip = {key: event[key] for key in ("tos", "ttl") if key in event}
    back = event.get("back", 0)
    if event["do"] == "segment":
        flow.segment(event["flags"], back, event.get("size", 0), event.get("offset", 0),
                     options=bytes.fromhex(event.get("options", "")), **ip)
    elif event["do"] == "send":
        split = event.get("split", ())
        order = list(reversed(range(len(split) + 1))) if event.get("shuffle") else ()
        flow.send(back, event["size"], not event.get("no_checksum"), split, shuffle=order, **ip)
    else:
        rest = b"\0\0\x05\x14" if (event["type"], event["code"]) in ((3, 4), (2, 0)) else bytes(4)
        sender = None
        if event["from"]:
            family = 6 if wire.is6(flow.client[0]) else 4
            side = flow.seen[0][event["about"]]
            sender = far(side[0] if side else "wan", number, event["from"], family)
        flow.error(event["type"], event["code"], event["about"], sender, rest)


def fails(twins, scenario, grace=GRACE):
    """Lines that tell the differences; None when the scenario is fine or is none for nft."""
    try:
        return run(twins, scenario, grace) or None
    except NftError:
        return None


def shrink(twins, scenario, attempts=600):
    """A smaller scenario that still fails. Parts are left out, from halves down to single ones."""
    best = copy.deepcopy(scenario)
    left = [attempts]

    def shorten(find):
        """find(scenario): a list in it, to be made as short as can be."""
        size = max(1, len(find(best)) // 2)
        while size >= 1:
            at = 0
            while at < len(find(best)) and left[0] > 0:
                candidate = copy.deepcopy(best)
                del find(candidate)[at:at + size]
                left[0] -= 1
                if fails(twins, candidate, grace=0.2):
                    best.update(candidate)
                else:
                    at += size
            size //= 2

    for _ in range(2):
        shorten(lambda s: s["events"])
        shorten(lambda s: s["tables"])
        for t, table in enumerate(best["tables"]):
            shorten(lambda s, t=t: s["tables"][t]["chains"])
            for c in range(len(best["tables"][t]["chains"])):
                shorten(lambda s, t=t, c=c: s["tables"][t]["chains"][c]["rules"])
            shorten(lambda s, t=t: s["tables"][t]["objects"])
    for t, table in enumerate(best["tables"]):
        for c, chain in enumerate(table["chains"]):
            for r in range(len(chain["rules"])):
                shorten(lambda s, t=t, c=c, r=r: s["tables"][t]["chains"][c]["rules"][r])
    return _without_idle_flows(best)


def _without_idle_flows(scenario):
    used = sorted({event["flow"] for event in scenario["events"]})
    return {**scenario, "flows": [scenario["flows"][number] for number in used],
            "events": [{**event, "flow": used.index(event["flow"])}
                       for event in scenario["events"]]}


def save(path, scenario, seed):
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"seed": seed, **scenario}, file, indent=1)
        file.write("\n")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)
