"""A namespace's nftables: commands through libnftables in this process, which costs far less than
starting nft, and counts by nfnetlink itself, since the library stumbles over rules that it cannot
print (nft 1.0.6 aborts).
"""

import ctypes
import socket
import struct
import subprocess

_LIB = ctypes.CDLL("libnftables.so.1")
_LIB.nft_ctx_new.restype = ctypes.c_void_p
_LIB.nft_ctx_new.argtypes = [ctypes.c_uint32]
_LIB.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
_LIB.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
for _name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error",
              "nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
    getattr(_LIB, _name).argtypes = [ctypes.c_void_p]
_LIB.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]

_NETLINK_NETFILTER, _SUBSYS_NFTABLES = 12, 10
_GETRULE, _GETGEN, _GETOBJ = 7, 16, 19
_REQUEST, _DUMP, _ERROR, _DONE = 1, 0x300, 2, 3
_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
# linux/netfilter/nf_tables.h
_GEN_ID = 1
_RULE_TABLE, _RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS = 1, 2, 3, 4
_EXPR_NAME, _EXPR_DATA = 1, 2
_COUNTER_BYTES, _COUNTER_PACKETS = 1, 2
_OBJ_TABLE, _OBJ_NAME, _OBJ_TYPE, _OBJ_DATA = 1, 2, 3, 4
_OBJECT_COUNTER = 1


def _attributes(data):
    """(kind, content) of netlink attributes."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("HH", data, at)
        if length < 4:
            return
        yield kind & 0x3fff, data[at + 4:at + length]
        at += (length + 3) & ~3


def _name(content):
    return content.rstrip(b"\0").decode()


def _counter(content):
    found = dict(_attributes(content))
    return tuple(struct.unpack("!Q", found[kind])[0] for kind in (_COUNTER_PACKETS, _COUNTER_BYTES))


class NftError(Exception):
    """nft refused a command."""


class Nft:
    """The nftables of a netns.Namespace."""

    def __init__(self, namespace):
        self._namespace = namespace
        with namespace.entered():
            # The library opens its socket when it is first used.
            self._context = _LIB.nft_ctx_new(0)
            self._netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
            _LIB.nft_ctx_buffer_output(self._context)
            _LIB.nft_ctx_buffer_error(self._context)
        self.run("list tables")

    def close(self):
        _LIB.nft_ctx_free(self._context)
        self._netlink.close()

    def run(self, commands):
        """Commands in nft's syntax, one transaction; returns what they printed."""
        # Names of interfaces are looked up where the caller is.
        with self._namespace.entered():
            status = _LIB.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed = _LIB.nft_ctx_get_output_buffer(self._context).decode()
        if status != 0:
            raise NftError(_LIB.nft_ctx_get_error_buffer(self._context).decode() or "refused")
        return printed

    def load(self, ruleset):
        """Makes this the whole ruleset."""
        self.run("flush ruleset\n" + ruleset)

    def _ask(self, message, flags=0):
        """(family, attributes) of every answer."""
        self._netlink.send(struct.pack("IHHIIBBH", 20, _SUBSYS_NFTABLES << 8 | message,
                                       _REQUEST | flags, 0, 0, 0, 0, 0))
        while True:
            answer = self._netlink.recv(1 << 20)
            at = 0
            while at + 16 <= len(answer):
                length, kind = struct.unpack_from("IH", answer, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise NftError(f"error {struct.unpack_from('i', answer, at + 16)[0]}")
                yield answer[at + 16], answer[at + 20:at + length]
                at += (length + 3) & ~3
            if not flags & _DUMP:
                return

    def generation(self):
        """The id of the ruleset in force, which every transaction raises."""
        [(_, answer)] = self._ask(_GETGEN)
        return struct.unpack("!I", dict(_attributes(answer))[_GEN_ID])[0]

    def counts(self):
        """{(family, table, chain, handle) or (family, table, "counter", name): (packets, bytes)}"""
        found = {}
        for family, answer in self._ask(_GETRULE, _DUMP):
            rule = dict(_attributes(answer))
            for _, element in _attributes(rule.get(_RULE_EXPRESSIONS, b"")):
                expression = dict(_attributes(element))
                if _name(expression[_EXPR_NAME]) == "counter":
                    key = (_FAMILIES[family], _name(rule[_RULE_TABLE]), _name(rule[_RULE_CHAIN]),
                           struct.unpack("!Q", rule[_RULE_HANDLE])[0])
                    found.setdefault(key, _counter(expression[_EXPR_DATA]))
        for family, answer in self._ask(_GETOBJ, _DUMP):
            made = dict(_attributes(answer))
            if struct.unpack("!I", made[_OBJ_TYPE])[0] == _OBJECT_COUNTER:
                key = _FAMILIES[family], _name(made[_OBJ_TABLE]), "counter", _name(made[_OBJ_NAME])
                found[key] = _counter(made[_OBJ_DATA])
        return found

    def rule_texts(self):
        """{(family, table, chain, handle): the rule as nft prints it}, for people."""
        listed = subprocess.run(["ip", "netns", "exec", self._namespace.name, "nft", "-a", "list",
                                 "ruleset"], capture_output=True, text=True, check=False).stdout
        texts, table, chain = {}, None, None
        for line in listed.splitlines():
            words = line.split()
            if words[:1] == ["table"]:
                table = words[1], words[2]
            elif words[:1] == ["chain"]:
                chain = words[1]
            elif table and chain and words[-3:-1] == ["#", "handle"]:
                texts[(*table, chain, int(words[-1]))] = " ".join(words[:-3])
        return texts
