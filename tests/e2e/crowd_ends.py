"""What crowds_test.py runs in hosts beside itself, each a process of its own.

    crowd_ends.py echo ADDRESS PORT
    crowd_ends.py syns DEVICE DESTINATION_MAC ADDRESS PORT
    crowd_ends.py resets DEVICE DESTINATION_MAC ADDRESS PORT

The echo has any number of connections at a time. It answers what it reads, and reads no more from
whom it still has something to answer.

The SYNs come from 65,536 strangers (198.18.0.0/16, or a /64 each of 2001:db8::/48), again and again, as fast as they can be sent,
until the process is ended. The resets belong to them: each names the number behind that of its SYN.
"""

import ctypes
import select
import socket
import struct
import sys

from load_ends import Message, Part

STRANGERS = 65536
_SOL_PACKET, _QDISC_BYPASS = 263, 20
_SYN, _RST = 2, 4


def echo(address, port):
    listener = socket.create_server((address, port), backlog=4096)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    sockets, pending = {}, {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                accept_all(listener, poll, sockets)
                continue
            s = sockets[descriptor]
            try:
                data = pending.pop(descriptor, None) or s.recv(1 << 16)
                rest = data[s.send(data):] if data else b""
            except BlockingIOError:
                rest = data
            except OSError:
                data = rest = b""
            if not data:
                del sockets[descriptor]
                s.close()
            elif rest:
                pending[descriptor] = rest
                poll.modify(descriptor, select.EPOLLOUT)
            else:
                poll.modify(descriptor, select.EPOLLIN)


def accept_all(listener, poll, sockets):
    while True:
        try:
            s = listener.accept()[0]
        except BlockingIOError:
            return
        s.setblocking(False)
        sockets[s.fileno()] = s
        poll.register(s, select.EPOLLIN)


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xffff) + (total >> 16)
    return ~((total & 0xffff) + (total >> 16)) & 0xffff


def frames_of_strangers(flags, link, address, port):
    """One frame of each. What differs among them is made up for in other fields, which need not be
    anything in particular, so that the checksums are always the same."""
    v6 = ":" in address
    target = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, address)
    def source(stranger):
        if v6:
            return struct.pack("!4H8x", 0x2001, 0xdb8, 0, stranger)
        return struct.pack("!HH", 0xc612, stranger)
    def ip(stranger, check):
        header = (struct.pack("!IHBB", 6 << 28, 20, 6, 64) if v6 else
                  struct.pack("!BBHHHBBH", 0x45, 0, 40, 0xffff - stranger, 0, 64, 6, check))
        return header + source(stranger) + target
    def tcp(stranger, check):
        sequence = (0xffff - stranger) << 16 | (stranger >> 2) + (flags == _RST)
        source_port = 0xffff - (stranger >> 2)
        return struct.pack("!HHIIBBHHH", source_port, port, sequence, 0, 5 << 4, flags, 8192,
                           check, 0)
    ip_check = checksum(ip(0, 0))
    pseudo = source(0) + target + struct.pack("!HH", 6, 20)
    tcp_check = checksum(pseudo + tcp(0, 0))
    return [link + ip(i, ip_check) + tcp(i, tcp_check) for i in range(STRANGERS)]


def flood(flags, device, mac, address, port, batch=1024):
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.setsockopt(_SOL_PACKET, _QDISC_BYPASS, 1)
    s.bind((device, 0))
    link = bytes.fromhex(mac.replace(":", "")) + s.getsockname()[4]
    link += b"\x86\xdd" if ":" in address else b"\x08\0"
    frames = frames_of_strangers(flags, link, address, port)
    size = len(frames[0])
    memory = ctypes.create_string_buffer(b"".join(frames))
    parts = (Part * STRANGERS)(*((ctypes.addressof(memory) + i * size, size)
                                  for i in range(STRANGERS)))
    messages = (Message * STRANGERS)(*(
        (None, 0, ctypes.addressof(parts) + i * ctypes.sizeof(Part), 1)
        for i in range(STRANGERS)))
    libc = ctypes.CDLL(None)
    while True:
        for at in range(0, STRANGERS, batch):
            # A frame that finds the device full is lost, which is nothing to a flood.
            libc.sendmmsg(s.fileno(), ctypes.byref(messages[at]), batch, 0)


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(sys.argv[2], int(sys.argv[3]))
    else:
        flood({"syns": _SYN, "resets": _RST}[sys.argv[1]], *sys.argv[2:5], int(sys.argv[5]))
