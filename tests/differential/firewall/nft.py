"""A namespace's nftables through libnftables, in this process: a command costs milliseconds.

The library's netlink socket is opened inside the namespace and stays there. The generation id, by
which one waits for a mirror, comes from nfnetlink itself.
"""

import ctypes
import json
import socket
import struct

_LIB = ctypes.CDLL("libnftables.so.1")
_LIB.nft_ctx_new.restype = ctypes.c_void_p
_LIB.nft_ctx_new.argtypes = [ctypes.c_uint32]
_LIB.nft_ctx_get_output_buffer.restype = ctypes.c_char_p
_LIB.nft_ctx_get_error_buffer.restype = ctypes.c_char_p
for _name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error",
              "nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
    getattr(_LIB, _name).argtypes = [ctypes.c_void_p]
_LIB.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
_LIB.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
_OUTPUT_HANDLE, _OUTPUT_JSON = 1 << 3, 1 << 4

_NETLINK_NETFILTER, _SUBSYS_NFTABLES, _GETGEN, _GEN_ID = 12, 10, 16, 1


class NftError(Exception):
    """nft refused a command."""


class Nft:
    """The nftables of a netns.Namespace."""

    def __init__(self, namespace):
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

    def run(self, commands, as_json=False):
        """Commands in nft's syntax, one transaction; returns what they printed."""
        _LIB.nft_ctx_output_set_flags(self._context,
                                      _OUTPUT_HANDLE | (_OUTPUT_JSON if as_json else 0))
        status = _LIB.nft_run_cmd_from_buffer(self._context, commands.encode())
        printed = _LIB.nft_ctx_get_output_buffer(self._context).decode()
        if status != 0:
            raise NftError(_LIB.nft_ctx_get_error_buffer(self._context).decode() or "refused")
        return printed

    def load(self, ruleset):
        """Makes this the whole ruleset."""
        self.run("flush ruleset\n" + ruleset)

    def generation(self):
        """The id of the ruleset in force, which every transaction raises."""
        payload = struct.pack("BBH", 0, 0, 0)
        self._netlink.send(struct.pack("IHHII", 16 + len(payload),
                                       _SUBSYS_NFTABLES << 8 | _GETGEN, 1, 1, 0) + payload)
        answer = self._netlink.recv(4096)
        at = 20
        while at < len(answer):
            length, kind = struct.unpack_from("HH", answer, at)
            if kind & 0x3fff == _GEN_ID:
                return struct.unpack_from("!I", answer, at + 4)[0]
            at += (length + 3) & ~3
        raise NftError("no generation id")

    def counts(self):
        """{(family, table, chain, handle) or (family, table, "counter", name): (packets, bytes)}"""
        found = {}
        for item in json.loads(self.run("list ruleset", as_json=True))["nftables"]:
            if "counter" in item:
                counter = item["counter"]
                key = counter["family"], counter["table"], "counter", counter["name"]
                found[key] = counter["packets"], counter["bytes"]
            if "rule" in item:
                rule = item["rule"]
                counter = next((e["counter"] for e in rule["expr"] if "counter" in e), None)
                if isinstance(counter, dict):
                    key = rule["family"], rule["table"], rule["chain"], rule["handle"]
                    found[key] = counter["packets"], counter["bytes"]
        return found

    def rule_texts(self):
        """{(family, table, chain, handle): the rule as nft prints it}, for people."""
        texts, table, chain = {}, None, None
        for line in self.run("list ruleset").splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "table":
                table = words[1], words[2]
            elif words[0] == "chain":
                chain = words[1]
            elif table and chain and words[-3:-2] == ["#"] and words[-2] == "handle":
                texts[(*table, chain, int(words[-1]))] = " ".join(words[:-3])
            elif table and chain and words[-2:-1] == ["handle"]:
                texts[(*table, chain, int(words[-1]))] = " ".join(words[:-3])
        return texts
