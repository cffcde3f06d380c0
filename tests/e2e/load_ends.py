"""The two ends of a Load (load.py), each a process of its own: datagrams with numbers, and their echo.

    load_ends.py client STATE ADDRESS PORT SOURCE_PORT SIZE WINDOW TOTAL
    load_ends.py server STATE ADDRESS PORT NUMBER

The client sends as fast as answers come, WINDOW ahead of them, so that no buffer on the way runs over;
when none come for a while it sends another WINDOW nevertheless. TOTAL 0: until it is told to stop.

STATE is a file that the test reads along: the next number to be sent, whether to stop, how many have
arrived, and from byte 64 on what became of each number. At the client, the number of the server that
has echoed it. At a server, 1 + the place of the sender among the different ones (address and port)
that it has heard.
"""

import mmap
import select
import socket
import struct
import sys

NEXT, STOP, ARRIVED, FATES = 0, 8, 16, 64
NUMBERS = 16 << 20
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 10, 23, 3
_STALL_MS = 20


def state_of(path):
    with open(path, "r+b") as file:
        return mmap.mmap(file.fileno(), FATES + NUMBERS)


def open_socket(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(
        socket, "SO_RCVBUFFORCE") else 33, 8 << 20)
    # Don't fragment, whatever is heard about the path.
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
    else:
        s.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
    s.bind((address if port is not None else "", port or 0))
    s.setblocking(False)
    return s


def client(path, address, port, source_port, size, window, total):
    state = state_of(path)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = open_socket("::" if family == socket.AF_INET6 else "0.0.0.0", source_port)
    s.connect((address, port))
    poll = select.poll()
    poll.register(s, select.POLLIN)
    padding = bytes(max(0, size - 8))
    number, credit, arrived = 0, window, 0
    while True:
        more = not state[STOP] and number < (total or NUMBERS)
        while more and credit > 0:
            # Whoever reads it knows that this number and all above are still to be sent.
            struct.pack_into("Q", state, NEXT, number)
            try:
                s.send(struct.pack("!Q", number) + padding)
            except OSError:  # what an ICMP error has said; or the queue is full
                break
            number += 1
            credit -= 1
            more = number < (total or NUMBERS)
        struct.pack_into("Q", state, NEXT, number)
        if not more and (state[STOP] or arrived >= number):
            return
        if not poll.poll(_STALL_MS):
            credit = window
            continue
        while True:
            try:
                data = s.recv(2048)
            except BlockingIOError:
                break
            except OSError:
                continue
            echoed = struct.unpack_from("!Q", data)[0]
            if not state[FATES + echoed]:
                arrived += 1
            state[FATES + echoed] = data[8]
            credit = min(credit + 1, window)
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


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:9]))
    else:
        server(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
