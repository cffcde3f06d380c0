"""Servers and clients that several end-to-end tests run through or against Sluice."""

import contextlib
import hashlib
import json
import os
import socket
import threading

from rig import inside, run

FILE_SIZE = 3_000_000


def url(address, port, path=""):
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/{path}"


class FileServer:
    """Serves one file of random bytes by nginx, on IPv4 and IPv6."""

    def __init__(self, rig, host, port, rate="0", more=""):
        """`rate`: bytes per second of a connection, as nginx wants it; 0: as fast as it goes.
        `more`: directives of nginx' for the server."""
        self.rig = rig
        self.port = port
        content = os.urandom(FILE_SIZE)
        self.digest = hashlib.sha256(content).hexdigest()
        root = rig.path(f"www-{host}-{port}")
        os.mkdir(root)
        os.chmod(rig.directory, 0o755)
        rig.write(f"www-{host}-{port}/file", content)
        config = rig.write(f"nginx-{host}-{port}.conf", f"""
daemon off; master_process off; pid {root}.pid; error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off; server_tokens off;
  client_body_temp_path {root}-b; proxy_temp_path {root}-p; fastcgi_temp_path {root}-f;
  uwsgi_temp_path {root}-u; scgi_temp_path {root}-s;
  server {{ listen {port}; listen [::]:{port}; root {root}; limit_rate {rate}; {more} }}
}}
""")
        rig.serve(host, port, "nginx", "-e", "stderr", "-c", config)

    def check_download(self, client, address):
        path = self.rig.path(f"download-{client}")
        self.rig.run(client, "curl", "-sS", "-g", "--fail", "--max-time", "30", "-o", path,
                     url(address, self.port, "file"))
        with open(path, "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == self.digest


class FtpServer:
    """pyftpdlib with anonymous access to one file, in passive mode."""

    _PROGRAM = """
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
authorizer = DummyAuthorizer()
authorizer.add_anonymous(sys.argv[2])
FTPHandler.authorizer = authorizer
FTPServer(("", int(sys.argv[1])), FTPHandler).serve_forever()
"""

    def __init__(self, rig, host, port):
        root = rig.path(f"ftp-{host}")
        os.mkdir(root)
        content = os.urandom(FILE_SIZE)
        self.digest = hashlib.sha256(content).hexdigest()
        rig.write(f"ftp-{host}/file", content)
        rig.serve(host, port, "/usr/bin/python3", "-c", self._PROGRAM, str(port), root)


class DnsServer:
    """dnsmasq, which says 192.0.2.7 whatever it is asked."""

    ANSWER = "192.0.2.7"

    def __init__(self, rig, host):
        rig.serve(host, 53, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--user=root",
                  "--pid-file=", "--no-resolv", "--no-hosts", f"--address=/#/{self.ANSWER}",
                  kind="udp")


class SshServer:
    """OpenSSH with a key and a configuration of its own, for one test."""

    def __init__(self, rig, host, port):
        self.rig = rig
        self.port = port
        self.key = rig.path(f"client-key-{host}")
        host_key = rig.path(f"host-key-{host}")
        for key in (self.key, host_key):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key)
        config = rig.write(f"sshd-{host}.conf", f"""
Port {port}
HostKey {host_key}
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
AuthorizedKeysFile {self.key}.pub
Subsystem sftp internal-sftp
""")
        os.makedirs("/run/sshd", exist_ok=True)  # sshd wants it, and its unit would make it
        rig.serve(host, port, "/usr/sbin/sshd", "-D", "-e", "-f", config)

    def options(self):
        return ["-i", self.key, "-F", "none", "-o", "StrictHostKeyChecking=no", "-o",
                "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
                "-o", "ConnectTimeout=10"]

    def run(self, client, address, command, **options):
        return self.rig.run(client, "ssh", *self.options(), "-p", str(self.port),
                            f"root@{address}", command, **options)

    def copy(self, client, address, source, target):
        host = f"[{address}]" if ":" in address else address
        self._scp(client, source, f"root@{host}:{target}")

    def fetch(self, client, address, source, target):
        host = f"[{address}]" if ":" in address else address
        self._scp(client, f"root@{host}:{source}", target)

    def _scp(self, client, source, target):
        self.rig.run(client, "scp", "-q", *self.options(), "-P", str(self.port), source, target)


@contextlib.contextmanager
def serving(rig, host, address, port, serve):
    """A TCP server in this process, each of whose connections `serve(socket)` gets on a thread."""
    with inside(rig.namespace(host)):
        listener = socket.create_server((address, port), backlog=1024)
    listener.settimeout(60)
    def accept():
        with contextlib.suppress(OSError):
            while True:
                s, _ = listener.accept()
                s.settimeout(60)
                threading.Thread(target=serve, args=(s,), daemon=True).start()
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def iperf(rig, client, address, *options, port=5201):
    """One iperf3 run against a server that is there; returns its summary."""
    family = "-6" if ":" in address else "-4"
    done = rig.run(client, "iperf3", family, "-c", address, "-p", str(port), "-J",
                   "--connect-timeout", "5000", *options)
    return json.loads(done.stdout)["end"]
