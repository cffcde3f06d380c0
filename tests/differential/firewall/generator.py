"""Random rulesets and random packets, from a seed. A scenario is plain data, which JSON can hold.

    {"tables": [{"family", "name", "objects": [text], "chains": [{"name", "base", "rules": [[text]]}]}],
     "flows": [{"protocol", "family", "in", "source", "out", "destination", "sport", "dport"}],
     "events": [{"flow": number, "do": name, ...}]}

Texts are nft's, with addresses as <link.host> (the family is the table's or is written <link.host/6>),
so that one scenario can be run again in another round, without the connections of the run before.
Every rule counts. What depends on the time is left out, or is far from its limit: a limit of some
packets a day lets just its burst through. What NAT chooses at will (a port of a range) no rule may
tell from another choice: `th` would read checksums of ICMP, and two flows want the same port only
where there is no NAT.
"""

import random
import re

LINKS = ("left", "right", "wan")
HOSTS = (1, 2, 3, 6, 17, 130)
PORTS = (22, 53, 80, 4000, 8080, 65535)
HOOKS = {"prerouting": (-300, -150, -50, 0), "forward": (-200, -10, 0, 10, 225), "input": (0,),
         "postrouting": (-150, 0, 50, 150, 300)}
# What a text says about the protocol: nft refuses rules that contradict themselves.
_TRANSPORT = re.compile(r"\b(tcp|udp|sctp|icmp|icmpv6) (?:[sd]port|flags|option|window|doff|type|code"
                        r"|length)|(?:l4proto|ip protocol|ip6 nexthdr|ct protocol) (\w+|\{)")
_NETWORK = re.compile(r"\b(ip6?) (?:saddr|daddr|dscp|ttl|length|protocol|frag-off|hoplimit|nexthdr)"
                      r"|\b(icmpv?6?) (?:type|code)|nfproto (ipv[46])|(exthdr)")
_IS_4 = {"ip": 4, "icmp": 4, "ipv4": 4}
_PORTS_OF = "meta l4proto { tcp, udp } "  # what `th` is for
_MEMORY = re.compile(r"\b(limit|quota)\b|@(dyn|timed|meter)[46]")
MARKS = (0, 1, 2, 0x10, 0x17, 0xff00, 0xffffffff)


def scenario(seed, packets=100):
    """The scenario of this seed."""
    return _Scenario(random.Random(seed), packets).make()


class _Scenario:
    def __init__(self, rng, packets):
        self.random = rng
        self.packets = packets
        self.fragments = True
        self.nat = False
        self.local = rng.random() < 0.5
        self.ports = set()

    def make(self):
        families = self.random.choice((("ip",), ("ip6",), ("inet",), ("inet",), ("ip", "ip6"),
                                       ("inet", "ip"), ("inet", "ip6"), ("ip", "inet", "ip6")))
        tables = [_Table(self.random, family, f"t{number}").make()
                  for number, family in enumerate(families)]
        for table in tables:
            for chain in table["chains"]:
                chain["rules"] = [self._here(rule) for rule in chain["rules"]]
        # Whether fragments are reassembled hangs on connection tracking, which the kernel ends some
        # time after the last rule that needs it is gone: either it is needed or there are none.
        self.fragments = self.random.random() < 0.85
        if self.fragments:
            tables.append({"family": "inet", "name": "tracking", "objects": [], "chains": [{
                "name": "every", "base": "type filter hook prerouting priority -140; policy accept;",
                "rules": [["ct state new", "counter"]]}]})
        self.nat = any(" nat " in (chain["base"] or "") for table in tables
                       for chain in table["chains"])
        flows, stories = [], []
        while sum(map(len, stories)) < self.packets:
            flows.append(self._flow())
            stories.append(self._story(len(flows) - 1, flows[-1]))
        return {"tables": tables, "flows": flows, "events": self._events(stories)}

    def _here(self, rule):
        """The rule without what only one of the two may judge by."""
        if self.local:
            return [text for text in rule if not _MEMORY.search(text)] or ["counter"]
        return [re.sub(r"redirect( to :\d+)?", "accept", text) for text in rule]

    def _flow(self):
        r = self.random
        there = r.choice(LINKS)
        out = r.choice([link for link in LINKS if link != there])
        protocol = r.choices(("tcp", "udp", "icmp", "sctp", "gre"), (8, 6, 3, 1, 1))[0]
        return {"protocol": protocol, "family": r.choice((4, 4, 6)), "in": there,
                "source": r.choice(HOSTS), "out": out,
                # 0: the router itself
                "destination": 0 if self.local and r.random() < 0.16 else r.choice(HOSTS),
                "sport": self._source_port(), "dport": r.choice(PORTS)}

    def _source_port(self):
        found = self.random.choice((*PORTS, self.random.randrange(1, 65536)))
        while self.nat and found in self.ports:
            found = self.random.randrange(1, 65536)
        self.ports.add(found)
        return found

    def _events(self, stories):
        """Each flow's own story in order, the stories mixed."""
        r = self.random
        events = []
        while len(events) < self.packets:
            story = r.choice([s for s in stories if s])
            # Runs of one flow are what a link carries, and few changes of the link are quick.
            for _ in range(min(r.choice((1, 2, 4)), len(story))):
                events.append(story.pop(0))
        return events[:self.packets]

    def _story(self, number, flow):
        r = self.random
        kind = flow["protocol"]
        story = self._tcp() if kind == "tcp" else self._datagrams(kind)
        if r.random() < 0.25:
            story.insert(r.randrange(1, len(story) + 1), self._error(flow["family"]))
        if not flow["destination"]:  # what the router itself would say, nobody else may
            story = [event for event in story if not event.get("back") and event["do"] != "error"]
        for event in story:
            event["flow"] = number
            if r.random() < 0.15:
                event["tos"] = r.choice((0x10, 0x28, 0xb8, 0xff, 0x02))
            if r.random() < 0.1:
                event["ttl"] = r.choice((1, 2, 3, 63, 128, 255))
        return story

    def _tcp(self):
        r = self.random
        if r.random() < 0.2:
            return [{"do": "segment", "flags": r.choice((0, 1, 2, 4, 0x10, 0x11, 0x12, 0x14, 0x18,
                                                         0x29, 0x3f, 0xc2, 0x30)),
                     "back": int(r.random() < 0.2), "size": r.choice((0, 0, 20, 600))}
                    for _ in range(r.randint(1, 3))]
        options = r.choice(("", "020405b4", "020405b40402080a00000001000000000103030701",
                            "0204022c"))
        story = [{"do": "segment", "flags": 2, "options": options},
                 {"do": "segment", "flags": 0x12, "back": 1, "options": options},
                 {"do": "segment", "flags": 0x10}]
        for _ in range(r.randint(0, 4)):
            story.append({"do": "segment", "flags": r.choice((0x18, 0x10)),
                          "back": r.randrange(2), "size": r.choice((1, 10, 100, 1000))})
        if r.random() < 0.5:
            story += [{"do": "segment", "flags": 0x11}, {"do": "segment", "flags": 0x11, "back": 1},
                      {"do": "segment", "flags": 0x10}]
        elif r.random() < 0.4:
            story.append({"do": "segment", "flags": r.choice((4, 0x14)), "back": r.randrange(2)})
        if r.random() < 0.25:  # out of order, out of window, lost, repeated
            place = r.randrange(len(story))
            change = r.randrange(3)
            if change == 0:
                del story[place]
            elif change == 1:
                story.insert(place, dict(story[place]))
            else:
                story.insert(place, {"do": "segment", "flags": r.choice((0x10, 0x14, 0x18, 4)),
                                     "offset": r.choice((1, -20, 20000, 90000000, -90000000)),
                                     "back": r.randrange(2), "size": r.choice((0, 10))})
        return story

    def _datagrams(self, kind):
        r = self.random
        story = []
        for _ in range(r.randint(1, 5)):
            event = {"do": "send", "back": int(bool(story) and r.random() < 0.4),
                     "size": r.choice((8, 24, 64, 300, 1200))}
            if self.fragments and r.random() < 0.12:
                event["size"], event["split"] = r.choice((
                    (900, [496]), (900, [8, 496]), (1300, [600, 200]), (1000, [24]),
                    (2000, [1000]), (2000, [800, 8])))
                if r.random() < 0.4:
                    event["shuffle"] = 1
            elif kind == "udp" and r.random() < 0.1:
                event["no_checksum"] = 1
            story.append(event)
        return story

    def _error(self, family):
        r = self.random
        if family == 4:
            kind, code = r.choice(((3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0)))
        else:
            kind, code = r.choice(((1, 0), (1, 3), (1, 4), (2, 0), (3, 0), (4, 1)))
        return {"do": "error", "type": kind, "code": code, "about": r.choice((0, 0, 1)),
                "from": r.choice((0, 0, 44))}


class _Table:
    def __init__(self, rng, family, name):
        self.random = rng
        self.family = family
        self.name = name
        self.objects = []
        self.chains = []
        self.regular = []
        self.sets = {}

    def make(self):
        r = self.random
        self._make_sets()
        self.regular = [f"r{i}" for i in range(r.choice((0, 1, 2, 3)))]
        # Jumps go forward only: no loops.
        for number, name in enumerate(self.regular):
            self._chain(name, None, self.regular[number + 1:], "any")
        for hook, priorities in HOOKS.items():
            wanted = r.choice((1, 1, 2, 3)) if hook == "forward" else r.choice((0, 0, 1, 1, 2))
            for priority in r.sample(priorities, min(len(priorities), wanted)):
                policy = "drop" if r.random() < 0.06 else "accept"
                self._chain(f"{hook}{priority}".replace("-", "m"),
                            f"type filter hook {hook} priority {priority}; policy {policy};",
                            self.regular, hook)
        if r.random() < 0.4:
            self._nat_chain("prerouting", -100)
        if r.random() < 0.5:
            self._nat_chain("postrouting", 100)
        return {"family": self.family, "name": self.name, "objects": self.objects,
                "chains": self.chains}

    # --- sets and maps ----------------------------------------------------------------------------

    def _make_sets(self):
        r = self.random
        for version in (4, 6):
            if self.family == ("ip6" if version == 4 else "ip"):
                continue
            kind = f"ipv{version}_addr"
            self._set(f"hosts{version}", f"type {kind};", self._distinct(self._host, version))
            self._set(f"nets{version}", f"type {kind}; flags interval; auto-merge;",
                      self._distinct(self._net, version))
            self._set(f"pairs{version}", f"type {kind} . inet_service;", self._distinct(
                lambda v: f"{self._host(v)} . {self._port()}", version))
            # Intervals of concatenations must not overlap.
            self._set(f"ranges{version}", f"type {kind} . inet_service; flags interval;", [
                f"{self._net(version, link)} . {self._ports()}" for link in LINKS])
            self._set(f"dyn{version}", f"type {kind}; size 1000; flags dynamic;", [])
            self._set(f"timed{version}", f"type {kind}; size 1000; flags dynamic,timeout; "
                      "timeout 1h;", [])
            self._set(f"meter{version}", f"type {kind}; size 1000; flags dynamic;", [])
            self._map(f"mark{version}", f"type {kind} : mark;", [
                f"{host} : {r.choice(MARKS):#x}" for host in self._distinct(self._host, version)])
        self._set("ports", "type inet_service;", sorted({str(self._port()) for _ in range(4)}))
        self._set("portranges", "type inet_service; flags interval; auto-merge;",
                  sorted({self._ports() for _ in range(3)}))
        self._map("portmark", "type inet_service : mark;",
                  [f"{p} : {r.choice(MARKS):#x}" for p in r.sample(PORTS, 4)])
        if r.random() < 0.3:
            self.objects.append("counter total { }")
            self.objects.append(f"quota some {{ over {r.choice((200, 1000, 5000))} bytes }}")
            self.sets["objects"] = True

    def _distinct(self, make, version, count=4):
        found = []
        for _ in range(self.random.randint(1, count)):
            element = make(version)
            if element not in found:
                found.append(element)
        return found

    def _set(self, name, kind, elements):
        if self.random.random() < 0.6:
            listed = f" elements = {{ {', '.join(elements)} }};" if elements else ""
            self.objects.append(f"set {name} {{ {kind}{listed} }}")
            self.sets[name] = True

    def _map(self, name, kind, elements):
        if self.random.random() < 0.6:
            self.objects.append(f"map {name} {{ {kind} elements = {{ {', '.join(elements)} }}; }}")
            self.sets[name] = True

    def _host(self, version):
        return f"<{self.random.choice(LINKS)}.{self.random.choice(HOSTS)}/{version}>"

    def _net(self, version, link=None):
        r = self.random
        link = link or r.choice(LINKS)
        if r.random() < 0.2:
            return f"<{link}.{r.choice(HOSTS)}/{version}>"
        first = r.randrange(1, 100)
        if r.random() < 0.5:
            return f"<{link}.{first}/{version}>-<{link}.{first + r.randrange(1, 100)}/{version}>"
        bits = r.choice((1, 2, 3, 5, 8))
        length = (32 if version == 4 else 128) - bits
        return f"<{link}.{first >> bits << bits}/{version}>/{length}"

    def _port(self):
        return self.random.choice(PORTS)

    def _ports(self):
        first = self.random.choice((1, 20, 50, 1000, 4000, 30000))
        return f"{first}-{first + self.random.choice((1, 40, 3000, 30000))}"

    # --- chains -----------------------------------------------------------------------------------

    def _chain(self, name, base, targets, hook):
        count = self.random.choice((1, 2, 4, 8, 14))
        self.chains.append({"name": name, "base": base,
                            "rules": [self._rule(targets, hook) for _ in range(count)]})

    def _version(self):
        if self.family == "inet":
            return self.random.choice((4, 6))
        return 4 if self.family == "ip" else 6

    def _rule(self, targets, hook):
        r = self.random
        version = self._version()
        rule = []
        for _ in range(r.choices((0, 1, 2, 3), (1, 6, 5, 2))[0]):
            self._append(rule, version, self._match(version, hook))
        if r.random() < 0.45:
            self._append(rule, version, self._transport())
        if r.random() < 0.05:
            rule.append(f"limit rate {r.choice(('', 'over '))}{r.randint(1, 5)}/day "
                        f"burst {r.randint(1, 9)} packets")
        if "objects" in self.sets and r.random() < 0.1:
            rule.append(r.choice(("quota name some", "counter name total")))
        rule.append("counter")
        if r.random() < 0.4:
            self._append(rule, version, self._statement(version, hook))
        self._append(rule, version, self._verdict(version, targets, hook))
        return rule

    def _append(self, rule, version, text):
        """Unless it is empty or contradicts what the rule says so far."""
        known = " ".join(rule)
        transports = {m[1] or m[2] for m in _TRANSPORT.finditer(f"{known} {text}")}
        families = {_IS_4.get(m[1] or m[2] or m[3] or m[4], 6)
                    for m in _NETWORK.finditer(f"{known} {text}")}
        if text and len(transports) <= 1 and families <= {version}:
            rule.append(text)

    def _verdict(self, version, targets, hook):
        r = self.random
        # Drops end what a packet can show: not too many.
        choice = r.choices(("", "accept", "drop", "return", "continue", "jump", "goto", "reject",
                            "vmap"), (34, 12, 4, 5, 1, 16, 5, 3, 8))[0]
        if choice in ("jump", "goto"):
            return f"{choice} {r.choice(targets)}" if targets else ""
        if choice == "reject":
            return self._reject(version) if hook in ("forward", "input") else "drop"
        if choice == "vmap":
            return self._vmap(version, targets)
        return choice

    def _reject(self, version):
        r = self.random
        if self.family == "inet":
            return r.choice(("reject", "meta l4proto tcp reject with tcp reset",
                             "reject with icmpx type admin-prohibited",
                             "reject with icmpx type no-route"))
        if self.family == "ip":
            return r.choice(("reject", "meta l4proto tcp reject with tcp reset",
                             "reject with icmp type host-unreachable",
                             "reject with icmp type admin-prohibited"))
        return r.choice(("reject", "meta l4proto tcp reject with tcp reset",
                         "reject with icmpv6 type admin-prohibited",
                         "reject with icmpv6 type addr-unreachable"))

    def _vmap(self, version, targets):
        r = self.random
        verdicts = ["accept", "drop", "continue", "return"] + [f"jump {t}" for t in targets]
        def elements(keys):
            return "{ " + ", ".join(f"{key} : {r.choice(verdicts)}" for key in keys) + " }"
        ip = "ip" if version == 4 else "ip6"
        return r.choice((
            lambda: f"tcp dport vmap {elements(r.sample(PORTS, 3))}",
            lambda: f"udp dport vmap {elements(('1-60', '61-4000', '5000'))}",
            lambda: f"ct state vmap {elements(('new', 'established', 'invalid', 'related'))}",
            lambda: f"meta l4proto vmap {elements(('tcp', 'udp', 'sctp', 'gre'))}",
            lambda: f"meta mark vmap {elements(('0x1', '0x2', '0x10-0x1f'))}",
            lambda: f"{ip} saddr vmap {elements(self._distinct(self._host, version))}",
            lambda: f"{_PORTS_OF}{ip} daddr . th dport vmap "
                    f"{elements(f'{self._host(version)} . {p}' for p in r.sample(PORTS, 2))}"))()

    def _match(self, version, hook):
        r = self.random
        ip = "ip" if version == 4 else "ip6"
        options = [
            lambda: f"{ip} {r.choice(('saddr', 'daddr'))} {r.choice(('', '!= '))}"
                    f"{self._net(version)}",
            lambda: f"{ip} {r.choice(('saddr', 'daddr'))} {{ "
                    f"{', '.join(self._distinct(self._host, version))} }}",
            lambda: f"{ip} saddr & {'255.255.255.7' if version == 4 else 'ffff:ffff:ffff::7'} "
                    f"== <{r.choice(LINKS)}.{r.randrange(1, 8)}/{version}>",
            lambda: f"{ip} dscp {r.choice(('cs1', '0x04', 'ef', '!= 0'))}",
            lambda: (f"ip ttl {r.choice(('< 3', '63', '> 64', '2-63'))}" if version == 4 else
                     f"ip6 hoplimit {r.choice(('< 3', '63', '> 64', '2-63'))}"),
            lambda: ("ip length " if version == 4 else "ip6 length ") +
                    r.choice(("< 100", "40-60", "> 500", "!= 44")),
            lambda: ("ip protocol " if version == 4 else "ip6 nexthdr ") +
                    r.choice(("tcp", "udp", "{ tcp, udp }", "!= tcp")),
            lambda: "ip frag-off & 0x1fff != 0" if version == 4 else "exthdr frag exists",
            lambda: f"meta l4proto {r.choice(('tcp', 'udp', '{ tcp, udp }', '!= icmp', 'sctp', 'gre'))}",
            lambda: f"meta length {r.choice(('< 100', '60-1000', '> 1000'))}",
            lambda: f"meta mark {r.choice(('0x1', '0x2', '!= 0x0', 'and 0xf == 0x7'))}",
            lambda: f"ct state {r.choice(('new', 'established', 'related', 'invalid', 'established,related', '!= new', 'untracked'))}",
            lambda: f"ct direction {r.choice(('original', 'reply'))}",
            lambda: f"ct mark {r.choice(('0x1', '0x2', '!= 0x0'))}",
            lambda: f"ct status {r.choice(('assured', 'seen-reply', 'confirmed', 'snat', 'dnat'))}",
            lambda: f"ct protocol {r.choice(('tcp', 'udp', 'icmp'))}",
            lambda: f"ct original {ip} saddr {self._net(version)}",
            lambda: f"ct reply {ip} saddr {self._net(version)}",
            lambda: f"meta l4proto tcp ct {r.choice(('original', 'reply'))} proto-dst {self._port()}",
            lambda: f"ct {r.choice(('original ', 'reply ', ''))}packets {r.choice(('> 2', '1', '< 4'))}",
            lambda: f"ct bytes {r.choice(('> 500', '< 1000'))}",
            lambda: self._lookup(version),
            lambda: self._lookup(version),
            lambda: self._lookup(version),
            lambda: self._interfaces(hook),
            lambda: self._interfaces(hook),
        ]
        if self.family == "inet":
            options.append(lambda: f"meta nfproto ipv{version}")
        if hook in ("prerouting", "input", "forward"):
            options.append(lambda: r.choice((
                "fib saddr . iif oif missing", "fib daddr type local", "fib saddr . iif oif exists",
                "fib daddr . iif type unicast", "fib daddr oifname wan", "fib saddr oif left")
                if hook != "forward" else ("fib daddr type unicast", "fib daddr oifname wan")))
        if hook == "prerouting":
            options.append(lambda: "ether saddr 02:00:00:00:01:02")
            options.append(lambda: "meta pkttype host")
        return r.choice(options)()

    def _lookup(self, version):
        r = self.random
        ip = "ip" if version == 4 else "ip6"
        choices = [
            (f"hosts{version}", f"{ip} {r.choice(('saddr', 'daddr'))} {r.choice(('', '!= '))}@"),
            (f"nets{version}", f"{ip} {r.choice(('saddr', 'daddr'))} {r.choice(('', '!= '))}@"),
            (f"pairs{version}", f"{_PORTS_OF}{ip} {r.choice(('saddr', 'daddr'))} . th dport @"),
            (f"ranges{version}", f"{ip} {r.choice(('saddr', 'daddr'))} . tcp dport @"),
            (f"dyn{version}", f"{ip} saddr @"), (f"timed{version}", f"{ip} daddr @"),
            ("ports", f"{r.choice(('tcp', 'udp'))} dport {r.choice(('', '!= '))}@"),
            ("portranges", f"{_PORTS_OF}th {r.choice(('sport', 'dport'))} @")]
        choices = [(name, words) for name, words in choices if name in self.sets]
        if not choices:
            return ""
        name, words = r.choice(choices)
        return words + name

    def _interfaces(self, hook):
        r = self.random
        names = r.choice(("left", "right", "wan", "{ left, wan }", "w*", "!= left", "lo"))
        if names == "w*":
            names = '"w*"'
        if hook == "any":
            return ""
        kinds = {"prerouting": ("iifname",), "input": ("iifname", "iif"),
                 "postrouting": ("oifname",), "forward": ("iifname", "oifname", "iif", "oif")}[hook]
        kind = r.choice(kinds)
        if kind in ("iif", "oif") and "*" in names:
            names = "right"
        return f"{kind} {names}"

    def _transport(self):
        r = self.random
        ports = r.choice((str(self._port()), self._ports(), f"!= {self._port()}",
                          "{ " + ", ".join(map(str, r.sample(PORTS, 3))) + " }",
                          "{ 1-100, 4000-5000 }", f"> {r.choice(PORTS[:-1])}"))
        return r.choice((
            f"tcp dport {ports}", f"tcp sport {ports}", f"udp dport {ports}", f"{_PORTS_OF}th dport {ports}",
            f"sctp dport {ports}", f"udp sport {ports}", "tcp flags syn",
            "tcp flags & (syn|ack) == syn", "tcp flags & (fin|syn|rst|ack) != syn",
            "tcp flags ! syn", "tcp flags fin,rst", f"udp length {r.choice(('< 50', '> 300'))}",
            "tcp option maxseg exists", "tcp option maxseg size < 1000", "tcp window > 8000",
            "tcp option sack-perm exists", "tcp doff > 5", _PORTS_OF + "@th,16,16 { 22, 53, 80 }",
            "icmp type echo-request" if self.family != "ip6" else "icmpv6 type echo-request",
            "icmpv6 type { echo-request, echo-reply }" if self.family != "ip" else
            "icmp type { echo-reply, destination-unreachable }",
            "icmp code 3" if self.family != "ip6" else "icmpv6 code 0"))

    def _statement(self, version, hook):
        r = self.random
        ip = "ip" if version == 4 else "ip6"
        options = [
            lambda: f"meta mark set {r.choice(MARKS):#x}",
            lambda: f"meta mark set meta mark {r.choice(('or', 'and', 'xor'))} {r.choice(MARKS):#x}",
            lambda: f"ct mark set {r.choice(MARKS):#x}",
            lambda: "ct mark set meta mark", lambda: "meta mark set ct mark",
            lambda: f"{ip} dscp set {r.choice(('cs1', 'ef', '0x05'))}",
            lambda: (f"ip ttl set {r.choice((9, 64, 200))}" if version == 4 else
                     f"ip6 hoplimit set {r.choice((9, 64, 200))}"),
            lambda: f"tcp option maxseg size set {r.choice((536, 1200))}",
            lambda: f"add @dyn{version} {{ {ip} saddr }}" if f"dyn{version}" in self.sets else "",
            lambda: f"update @timed{version} {{ {ip} saddr }}" if f"timed{version}" in self.sets
            else "",
            lambda: f"add @meter{version} {{ {ip} saddr limit rate over 1/day burst "
                    f"{r.randint(1, 6)} packets }} counter" if f"meter{version}" in self.sets else "",
            lambda: f"meta mark set {ip} saddr map @mark{version}" if f"mark{version}" in self.sets
            else "",
            lambda: "meta mark set tcp dport map @portmark" if "portmark" in self.sets else "",
        ]
        if hook == "prerouting" and r.random() < 0.15:
            return "notrack"
        return r.choice(options)()

    # --- NAT --------------------------------------------------------------------------------------

    def _nat_chain(self, hook, priority):
        count = self.random.choice((1, 2, 4))
        make = self._destination_nat if hook == "prerouting" else self._source_nat
        self.chains.append({
            "name": f"nat_{hook}", "rules": [make() for _ in range(count)],
            "base": f"type nat hook {hook} priority {priority}; policy accept;"})

    def _nat_rule(self, version, hook, what):
        r = self.random
        rule = [f"meta nfproto ipv{version}"] if self.family == "inet" else []
        if r.random() < 0.5:
            self._append(rule, version, self._match(version, hook))
        before = len(rule)
        self._append(rule, version, what)
        return rule if len(rule) > before else [*rule, "counter"]

    def _to(self, version):
        if self.family == "inet":
            return "ip to" if version == 4 else "ip6 to"
        return "to"

    def _destination_nat(self):
        r = self.random
        version = self._version()
        host = f"<{r.choice(LINKS)}.{r.choice(HOSTS)}/{version}>"
        with_port = f"{host}:{self._port()}" if version == 4 else f"[{host}]:{self._port()}"
        protocol = r.choice(("tcp", "udp"))
        what = r.choice((
            f"meta l4proto {protocol} counter dnat {self._to(version)} {with_port}",
            f"{protocol} dport {self._port()} counter dnat {self._to(version)} {with_port}",
            f"counter dnat {self._to(version)} {host}",
            f"meta l4proto {protocol} counter redirect to :{self._port()}",
            f"{protocol} dport {self._port()} counter redirect", "counter accept"))
        return self._nat_rule(version, "prerouting", what)

    def _source_nat(self):
        r = self.random
        version = self._version()
        host = f"<{r.choice(LINKS)}.{r.choice(HOSTS)}/{version}>"
        what = r.choice(("counter masquerade", "counter masquerade",
                         f"counter snat {self._to(version)} {host}",
                         "meta l4proto { tcp, udp } counter masquerade to :2000-2999",
                         f"meta l4proto udp counter snat {self._to(version)} "
                         f"{host if version == 4 else f'[{host}]'}:5100-5999",
                         "counter accept"))
        return self._nat_rule(version, "postrouting", what)
