"""Network namespaces without a process in them: commands, sysctls and sockets of another one.

A socket belongs to the namespace it was opened in for life, so the harness opens its sockets inside
and stays outside.
"""

import contextlib
import ctypes
import os
import socket
import subprocess

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def run(*command, stdin=None):
    """Runs a command to its end and returns what it printed; an error tells what it said."""
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: status {done.returncode}\n{done.stdout}")
    return done.stdout


class Namespace:
    """A named network namespace, made here and removed by close()."""

    def __init__(self, name):
        self.name = name
        run("ip", "netns", "add", name)

    def close(self):
        run("ip", "netns", "del", self.name)

    @contextlib.contextmanager
    def entered(self):
        """The calling thread is in the namespace; /proc/sys/net then shows its sysctls."""
        with open("/proc/self/ns/net", "rb") as home, \
                open(f"/run/netns/{self.name}", "rb") as target:
            _setns(target.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def ip(self, lines):
        """ip(8) commands, one a line."""
        run("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def sysctl(self, settings):
        """Names with slashes below net/, as interface names may contain dots."""
        with self.entered():
            for name, value in settings.items():
                with open(os.path.join("/proc/sys/net", name), "w", encoding="ascii") as file:
                    file.write(str(value))

    def socket(self, *arguments):
        with self.entered():
            return socket.socket(*arguments)


def _setns(descriptor):
    if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "setns")
