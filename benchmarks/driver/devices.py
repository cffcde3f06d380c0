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
        ids = rig.napi_threads()
        if self.process:
            ids += [int(task) for task in os.listdir(f"/proc/{self.process.pid}/task")]
        return ids

    def _spawn(self, *words, stdout=subprocess.PIPE, stderr=None):
        # `ip netns exec` and taskset replace themselves, so the pid is the device's.
        self.process = rig.spawn(*in_namespace(DUT_NS, "taskset", "-c", str(DUT_CPU), *words),
                                 stdout=stdout, stderr=stderr)

    def _confine(self):
        rig.confine_napi([IN_IF, OUT_IF], self.napi_nice)
        if rig.realtime:
            for task in os.listdir(f"/proc/{self.process.pid}/task"):
                rig.make_realtime(int(task), rig.WORKER_PRIORITY)


class KernelDevice(Device):
    name = "kernel"

    def start(self):
        # GRO gives the ingress veth a NAPI, which a thread can run; without it the kernel would
        # forward on the generator's core.
        run(*in_namespace(DUT_NS, "ethtool", "-K", IN_IF, "gro", "on"))
        rig.confine_napi([IN_IF])

    def stop(self):
        run(*in_namespace(DUT_NS, "ethtool", "-K", IN_IF, "gro", "off"))
        return ""


class BareDevice(Device):
    name = "bare"
    expected = "untouched"

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

    def __init__(self, bench):
        super().__init__(bench)
        self.control = os.path.join(bench.work, "sluice.sock")
        self.log = os.path.join(bench.work, "sluice.log")

    def available(self):
        return os.access(self.bench.program("sluice"), os.X_OK)

    def start(self):
        config = os.path.join(self.bench.work, "sluice.yaml")
        with open(config, "w", encoding="ascii") as file:
            file.write(f"interfaces:\n  - name: {IN_IF}\n  - name: {OUT_IF}\n")
        with open(self.log, "a", encoding="utf-8") as log:
            self._spawn(self.bench.program("sluice"), "--control", self.control, "run",
                        "--config", config, stdout=log, stderr=log)
        self.command("wait-ready", "--timeout", "60")
        self._confine()

    def command(self, *words):
        return run(*in_namespace(DUT_NS, self.bench.program("sluice"), "--control", self.control,
                                 *words))


ALL = {device.name: device for device in (KernelDevice, BareDevice, SluiceDevice)}
