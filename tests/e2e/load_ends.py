"""The two ends of a Load (load.py), each a process of its own: datagrams with numbers, and their echo.

    load_ends.py client STATE ADDRESS PORT SOURCE_PORT FLOWS SIZE WINDOW
    load_ends.py server STATE ADDRESS PORT NUMBER
    load_ends.py flood DEVICE DESTINATION_MAC SOURCE ADDRESS TOTAL

The client sends as fast as answers come, WINDOW ahead of them, so that no buffer on the way runs over;
when none come for a while it sends another WINDOW nevertheless, until it is told to stop. FLOWS source
ports take turns.

STATE is a file that the test reads along: the next number to be sent, whether to stop, how many have
arrived, and from byte 64 on what became of each number. At the client, the number of the server that
has echoed it. At a server, 1 + the place of the sender among the different ones (address and port)
that it has heard.

The flood is TOTAL IPv4 datagrams, each of another flow, as fast as they can be sent.
"""

import ctypes
import mmap
import resource
import select
import socket
import struct
import sys

NEXT, STOP, ARRIVED, FATES = 0, 8, 16, 64
NUMBERS = 16 << 20
_SO_RCVBUFFORCE = 33
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 10, 23, 3
_STALL_S = 0.02


def state_of(path):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), FATES + NUMBERS)


def open_socket(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
    # Don't fragment, whatever is heard about the path.
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
    s.bind((address, port))
    s.setblocking(False)
    return s


def client(path, address, port, source_port, flows, size, window):
    state = state_of(path)
    anybody = "::" if ":" in address else "0.0.0.0"
    resource.setrlimit(resource.RLIMIT_NOFILE, (flows + 100, flows + 100))
    sockets = [open_socket(anybody, source_port + i) for i in range(flows)]
    by_descriptor = {s.fileno(): s for s in sockets}
    poll = select.epoll()
    for s in sockets:
        s.connect((address, port))
        poll.register(s, select.EPOLLIN)
    padding = bytes(max(0, size - 8))
    number, credit, arrived = 0, window, 0
    while True:
        more = not state[STOP] and number < NUMBERS
        while more and credit > 0:
            # Whoever reads it knows that this number and all above are still to be sent.
            struct.pack_into("Q", state, NEXT, number)
            try:
                sockets[number % flows].send(struct.pack("!Q", number) + padding)
            except OSError:  # what an ICMP error has said; or the queue is full
                break
            number += 1
            credit -= 1
            more = number < NUMBERS
        struct.pack_into("Q", state, NEXT, number)
        if not more:
            stop_when_quiet(state, poll, by_descriptor, arrived)
            return
        ready = poll.poll(_STALL_S)
        if not ready:
            credit = window
        for descriptor, _ in ready:
            new, answers = receive(state, by_descriptor[descriptor])
            arrived += new
            credit = min(credit + answers, window)
        struct.pack_into("Q", state, ARRIVED, arrived)


def receive(state, s):
    """Takes what has come; returns (how many numbers for the first time, how many)."""
    new = answers = 0
    while True:
        try:
            data = s.recv(2048)
        except BlockingIOError:
            return new, answers
        except OSError:
            continue
        echoed = struct.unpack_from("!Q", data)[0]
        new += not state[FATES + echoed]
        state[FATES + echoed] = data[8]
        answers += 1


def stop_when_quiet(state, poll, by_descriptor, arrived):
    while True:
        ready = poll.poll(0.2)
        if not ready:
            return
        for descriptor, _ in ready:
            arrived += receive(state, by_descriptor[descriptor])[0]
        struct.pack_into("Q", state, ARRIVED, arrived)


def server(path, address, port, number):
    state = state_of(path)
    s = open_socket(address, port)
    poll = select.poll()
    poll.register(s, select.POLLIN)
    senders, arrived = {}, 0
    while True:
        poll.poll()
        while True:
            try:
                data, sender = s.recvfrom(2048)
            except BlockingIOError:
                break
            except OSError:
                continue
            place = senders.get(sender)
            if place is None:
                place = senders[sender] = min(len(senders) + 1, 255)
            asked = struct.unpack_from("!Q", data)[0]
            arrived += 1
            state[FATES + asked] = place
            struct.pack_into("Q", state, ARRIVED, arrived)
            try:
                s.sendto(data[:8] + bytes([number]) + data[9:], sender)
            except OSError:
                pass


class Message(ctypes.Structure):
    """struct mmsghdr"""
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint32),
                ("parts", ctypes.c_void_p), ("part_count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t),
                ("flags", ctypes.c_int), ("hole", ctypes.c_int), ("sent", ctypes.c_uint32)]


class Part(ctypes.Structure):
    """struct iovec"""
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def flood(device, mac, source, address, total, batch=256):
    libc = ctypes.CDLL(None)
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    s.bind((device, 0))
    own = s.getsockname()[4]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 36, 0, 0, 64, 17, 0) + socket.inet_aton(
        source) + socket.inet_aton(address)
    folded = sum(struct.unpack("!10H", header))
    folded = (folded & 0xffff) + (folded >> 16)
    header = header[:10] + struct.pack("!H", ~folded & 0xffff) + header[12:]
    frame = bytes.fromhex(mac.replace(":", "")) + own + b"\x08\0" + header + struct.pack(
        "!HHHH", 0, 0, 16, 0) + bytes(8)
    frames = bytearray(frame * batch)
    base = ctypes.addressof(ctypes.c_char.from_buffer(frames))
    parts = (Part * batch)(*(Part(base + i * len(frame), len(frame)) for i in range(batch)))
    messages = (Message * batch)(*(Message(
        None, 0, ctypes.addressof(parts) + i * ctypes.sizeof(Part), 1, None, 0, 0, 0, 0)
        for i in range(batch)))
    flow = 0
    while flow < total:
        for i in range(batch):
            struct.pack_into("!HH", frames, i * len(frame) + 34, 1024 + (flow >> 15 & 0x3fff),
                             1 + (flow & 0x7fff))
            flow += 1
        at = 0
        while at < batch:
            # A frame that finds the device full is lost, which is nothing to a flood.
            at += max(1, libc.sendmmsg(s.fileno(), ctypes.byref(messages[at]), batch - at, 0))


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:9]))
    elif sys.argv[1] == "server":
        server(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        flood(*sys.argv[2:6], int(sys.argv[6]))
