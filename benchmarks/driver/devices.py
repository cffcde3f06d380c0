"""The devices under test: each starts in bench-dut, forwards from brig-in to brig-out on core 1
with everything it needs, and stops without a trace."""

import json
import os
import signal
import subprocess

import rig
from rig import DUT_CPU, DUT_NS, IN_IF, OUT_IF, RigError, in_namespace, run


class Device:
    """Common parts. `expected` names the sink's counter for correctly forwarded frames."""

    name = ""
    expected = "forwarded"
    translates = True  # carries out a ruleset, if there is one
    napi_nice = rig.GROUP_NICE + rig.NAPI_YIELD

    def __init__(self, bench):
        self.bench = bench
        self.process = None

    def available(self):
        return True

    def start(self):
        raise NotImplementedError

    def stop(self):
        """Ends the device; returns what it said about itself, if anything."""
        said = ""
        if self.process:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            try:
                said, _ = self.process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
                raise RigError(f"{self.name} did not end on SIGTERM") from None
            self.process = None
        return (said or "").strip()

    def threads(self):
        """Thread ids whose CPU time is the device's."""
        return rig.napi_threads() + self.own_threads()

    def own_threads(self):
        if not self.process:
            return []
        return [int(task) for task in os.listdir(f"/proc/{self.process.pid}/task")]

    def _spawn(self, *words, stdout=subprocess.PIPE, stderr=None):
        # `ip netns exec` and taskset replace themselves, so the pid is the device's.
        self.process = rig.spawn(*in_namespace(DUT_NS, "taskset", "-c", str(DUT_CPU), *words),
                                 stdout=stdout, stderr=stderr)

    def _confine(self):
        rig.confine_napi([IN_IF, OUT_IF], self.napi_nice)
        if rig.realtime:
            for task in self._packet_threads():
                rig.make_realtime(task, rig.WORKER_PRIORITY)

    def _packet_threads(self):
        """Those of the own threads that handle packets."""
        return self.own_threads()


class KernelDevice(Device):
    name = "kernel"
    interfaces = (IN_IF,)

    def start(self):
        # GRO gives a veth a NAPI, which a thread can run; without it the kernel would forward on
        # the sender's core.
        for interface in self.interfaces:
            run(*in_namespace(DUT_NS, "ethtool", "-K", interface, "gro", "on"))
        rig.confine_napi(self.interfaces)

    def stop(self):
        for interface in self.interfaces:
            run(*in_namespace(DUT_NS, "ethtool", "-K", interface, "gro", "off"))
        return ""


class KernelBothWays(KernelDevice):
    """For loads that come from both sides."""
    interfaces = (IN_IF, OUT_IF)


class KernelSteered(KernelBothWays):
    """For segments of 64 KB, which pass by the NAPI: they are steered to the device's core."""

    def start(self):
        super().start()
        for interface in self.interfaces:
            rig.steer(DUT_NS, interface, DUT_CPU)

    def stop(self):
        for interface in self.interfaces:
            rig.steer(DUT_NS, interface, None)
        return super().stop()


class KernelInline(Device):
    """The kernel as it comes between veths: it forwards in the sender's system call, on the
    sender's core, and wakes nobody. No network card lets it."""

    name = "kernel-inline"

    def start(self):
        pass


class XdpDevice(Device):
    """The kernel's route lookup and a redirect, inside XDP: no translation, no connections."""

    name = "xdp"
    translates = False

    def __init__(self, bench):
        super().__init__(bench)
        self.helper = None

    def start(self):
        self.helper = rig.Helper(*in_namespace(DUT_NS, self.bench.program("fib_forwarder"), IN_IF,
                                               OUT_IF))
        rig.confine_napi([IN_IF, OUT_IF])

    def stop(self):
        said = self.helper.ask("read")
        self.helper.close()
        return said


class BareDevice(Device):
    name = "bare"
    expected = "untouched"
    translates = False

    def __init__(self, bench, options=()):
        super().__init__(bench)
        self.options = options

    def start(self):
        self._spawn(self.bench.program("bare_forwarder"), IN_IF, OUT_IF, *self.options)
        if not self.process.stdout.readline():
            raise RigError("the bare forwarder did not start")
        self._confine()

    def stop(self):
        said = super().stop()
        return json.loads(said) if said else {}


class SluiceDevice(Device):
    name = "sluice"
    settings = ""  # of the configuration, beside the interfaces

    def __init__(self, bench):
        super().__init__(bench)
        self.control = os.path.join(bench.work, "sluice.sock")
        self.log = os.path.join(bench.work, "sluice.log")

    def available(self):
        return os.access(self.bench.program("sluice"), os.X_OK)

    def start(self):
        config = os.path.join(self.bench.work, "sluice.yaml")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"interfaces:\n  - name: {IN_IF}\n  - name: {OUT_IF}\n{self.settings}")
        with open(self.log, "a", encoding="utf-8") as log:
            self._spawn(self.bench.program("sluice"), "--control", self.control, "run",
                        "--config", config, stdout=log, stderr=log)
        self.command("wait-ready", "--timeout", "60")
        self._confine()

    def _packet_threads(self):
        # The others must not keep them waiting.
        names = {}
        for task in self.own_threads():
            with open(f"/proc/{task}/comm", encoding="ascii") as file:
                names[task] = file.read()
        return [task for task, name in names.items() if name.startswith("sluice-w")]

    def command(self, *words):
        return run(*in_namespace(DUT_NS, self.bench.program("sluice"), "--control", self.control,
                                 *words))


def can_offload(bench):
    """Whether this build knows the flow tier."""
    config = os.path.join(bench.work, "offload-check.yaml")
    with open(config, "w", encoding="ascii") as file:
        file.write(f"interfaces:\n  - name: {IN_IF}\n  - name: {OUT_IF}\nflow_offload: on\n")
    return subprocess.run([bench.program("sluice"), "check", "--config", config],
                          capture_output=True, check=False).returncode == 0


class SluiceWorkers(SluiceDevice):
    """Every packet goes to a worker."""

    name = "sluice-off"

    def start(self):
        self.settings = "flow_offload: off\n" if can_offload(self.bench) else ""
        super().start()


class SluiceOffload(SluiceDevice):
    """Flows that have proved themselves stay in XDP."""

    name = "sluice-on"
    settings = "flow_offload: on\n"

    def available(self):
        return super().available() and can_offload(self.bench)


ALL = {device.name: device for device in (KernelDevice, BareDevice, SluiceDevice)}
OFFLOAD = {device.name: device
           for device in (XdpDevice, KernelDevice, SluiceWorkers, SluiceOffload)}
