"""What is in deploy/ and config/: checked by the tools that will read it, and tried.

The rig and the installation are made for real, under names and directories of this test's own.
"""

import glob
import json
import os
import re
import socket
import subprocess
import time

import pytest
import yaml

SOURCE = os.environ["SLUICE_SOURCE"]
SLUICE = os.environ["SLUICE_BIN"]
DEPLOY = os.path.join(SOURCE, "deploy")
PROMETHEUS = os.path.join(DEPLOY, "prometheus")
RIG = os.path.join(DEPLOY, "rig.sh")

SCRIPTS = sorted(
    path
    for pattern in ("deploy/*.sh", "tests/*.sh", "tests/vm/*.sh", "benchmarks/*.sh", ".ci/run")
    for path in glob.glob(os.path.join(SOURCE, pattern))
)
UNITS = ["sluice.service", "sluice@.service"]
CONFIGS = sorted(glob.glob(os.path.join(SOURCE, "config/*.yaml")))

def run(*command, check=True, **options):
    """Runs a command; when it fails, the test fails with what it said."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, timeout=120, **options)
    if check:
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout}"
    return done


def read(*path):
    with open(os.path.join(SOURCE, *path), encoding="utf-8") as file:
        return file.read()


def metric_table():
    """Name to labels, of every metric in the one table that the program is built from."""
    text = read("userspace/telemetry/metrics.inc")
    rows = re.findall(r'^SLUICE_METRIC\(\w+, "(\w+)", (\w+), "([\w,]*)"', text, re.MULTILINE)
    assert len(rows) > 20 and len(rows) == len(re.findall(r"^SLUICE_METRIC\(", text, re.MULTILINE))
    table = {}
    for name, kind, labels in rows:
        labels = set(filter(None, labels.split(",")))
        # A histogram is three families of series; it counts as shown when its buckets are.
        table[name if kind != "kHistogram" else f"{name}_bucket"] = (
            labels if kind != "kHistogram" else labels | {"le"})
        if kind == "kHistogram":
            PARTS.update({f"{name}_sum": labels, f"{name}_count": labels})
    return table


PARTS = {}  # of histograms, beside their buckets
METRICS = metric_table()


# --- Scripts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: os.path.relpath(path, SOURCE))
def test_script_parses_and_is_executable_unless_it_is_sourced(script):
    assert os.access(script, os.X_OK) == read(script).startswith("#!")
    run("bash", "-n", script)


@pytest.mark.parametrize("script", ["install.sh", "rig.sh", "demo.sh", "packages.sh"])
def test_script_explains_itself(script):
    said = run(os.path.join(DEPLOY, script), "--help").stdout
    assert f"deploy/{script}" in said or f"{script} " in said
    assert "#!" not in said


@pytest.mark.parametrize("script", ["install.sh", "rig.sh", "demo.sh"])
def test_script_refuses_what_it_does_not_know(script):
    assert run(os.path.join(DEPLOY, script), "--no-such-option", check=False).returncode == 2


def package_set(name):
    return set(run(os.path.join(DEPLOY, "packages.sh"), "--list", name).stdout.split())


def test_package_sets():
    assert {"cmake", "clang", "libxdp-dev"} <= package_set("build")
    assert {"nginx", "iperf3", "curl"} <= package_set("demo") <= package_set("test")
    unknown = run(os.path.join(DEPLOY, "packages.sh"), "--list", "nonsense", check=False)
    assert unknown.returncode == 2


def test_packages_exist_in_debian():
    names = sorted(set.union(*map(package_set, ("build", "demo", "test", "runtime"))))
    known = set(run("apt-cache", "pkgnames").stdout.split())
    assert not [name for name in names if name not in known]


def test_runtime_packages_are_the_libraries_of_the_program():
    libraries = re.findall(r"=> (/\S+)", run("ldd", SLUICE).stdout)
    assert libraries
    missing, used = {}, set()
    for library in libraries:
        # Debian 12 knows files of /usr/lib under /lib when their package says so.
        real = os.path.realpath(library)
        names = {real, real.removeprefix("/usr"), "/usr" + real}
        owners = run("dpkg-query", "-S", *sorted(names), check=False).stdout
        packages = set(re.findall(r"^([a-z0-9.+-]+)(?::\w+)?: /", owners, re.MULTILINE))
        used |= packages
        if not packages & with_dependencies("runtime"):
            missing[library] = packages
    assert not missing
    # Beside the libraries: `ip` for whoever looks, and the names that rules are written with.
    assert package_set("runtime") - used == {"iproute2", "netbase"}


def with_dependencies(name, cache={}):
    """The set's packages and all they depend on, as apt knows them."""
    if name not in cache:
        said = run("apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests",
                   "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances",
                   *sorted(package_set(name))).stdout
        cache[name] = set(re.findall(r"^([a-z0-9.+-]+)(?::\w+)?$", said, re.MULTILINE))
        # What every Debian system has anyway.
        cache[name] |= {"libc6", "libgcc-s1", "libstdc++6"}
    return cache[name]


# --- Prometheus and Grafana -----------------------------------------------------------------------


def test_prometheus_configuration():
    assert "SUCCESS" in run("promtool", "check", "config",
                            os.path.join(PROMETHEUS, "prometheus.yml")).stdout


def alert_names():
    groups = yaml.safe_load(read("deploy/prometheus/alerts.yml"))["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def test_alert_rules_pass_their_tests():
    run("promtool", "test", "rules", "alerts_test.yml", cwd=PROMETHEUS)


def test_every_alert_fires_in_a_test():
    tests = yaml.safe_load(read("deploy/prometheus/alerts_test.yml"))["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"]
             if case["exp_alerts"]}
    assert sorted(fired) == sorted(alert_names())


def expressions():
    """(where, PromQL) of the alerts and of the dashboard."""
    for group in yaml.safe_load(read("deploy/prometheus/alerts.yml"))["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def names_in(expression):
    """Metric names, with those that a __name__ pattern matches."""
    names = set()
    for pattern in re.findall(r'__name__=~"([^"]*)"', expression):
        matched = {name for name in METRICS if re.fullmatch(pattern, name)}
        # Each alternative has to be a metric, or the sum would lack one without a word.
        assert len(matched) == pattern.count("|") + 1, pattern
        names |= matched
    bare = re.sub(r'"[^"]*"', '""', expression)
    return names | set(re.findall(r"\b(?:sluice|process)_\w+", bare))


def test_expressions_use_known_metrics_and_labels():
    for where, expression in expressions():
        names = names_in(expression)
        assert names <= set(METRICS), where
        known = {"job", "instance", "__name__"}.union(*(METRICS[name] for name in names))
        used = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', expression))
        for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
            used |= {label.strip() for label in group.split(",")}
        assert used <= known, where


def dashboard():
    return json.loads(read("deploy/grafana/sluice.json"))


def test_every_metric_is_on_the_dashboard():
    shown = set().union(*(names_in(expression) for _, expression in expressions()))
    missing = {name for name in METRICS if name.startswith("sluice_")} - shown
    assert not missing


def test_dashboard_is_well_formed():
    board = dashboard()
    assert board["schemaVersion"] >= 30 and board["title"] and board["uid"]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = set()
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= 24
        mine = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])}
        assert not mine & cells, f"{panel['title']} overlaps"
        cells |= mine
        if panel["type"] == "row":
            continue
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["targets"]
        for target in panel["targets"]:
            for variable in re.findall(r"\$(\w+)", target["expr"]):
                assert variable in variables or variable == "__rate_interval", panel["title"]


# --- systemd and Docker ---------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_unit_is_valid(unit, tmp_path):
    # The program need not be installed for its unit to be checked.
    copy = tmp_path / unit
    copy.write_text(read("deploy", unit).replace("/usr/local/bin/sluice", SLUICE))
    said = run("systemd-analyze", "verify", "--man=no", str(copy)).stdout
    assert unit not in said, said


def settings(unit):
    return {line for line in read("deploy", unit).splitlines() if re.match(r"\w+=", line)}


def test_units_differ_only_where_a_namespace_matters():
    differ = {line.split("=")[0] for line in settings(UNITS[0]) ^ settings(UNITS[1])}
    assert differ == {"Description", "AssertPathExists", "NetworkNamespacePath", "ExecStartPre",
                      "ExecStart", "RuntimeDirectory"}


@pytest.mark.parametrize("unit", UNITS)
def test_unit_never_gives_up_on_an_interface_that_is_late(unit):
    # Without StartLimitIntervalSec=0 systemd does after five starts in ten seconds.
    assert {"StartLimitIntervalSec=0", "Restart=on-failure", "RestartSec=2"} <= settings(unit)


def test_dockerfile_takes_its_packages_from_the_list():
    lines = re.sub(r"\\\n", " ", read("deploy/Dockerfile"))
    instructions = [line.split(None, 1) for line in lines.splitlines()
                    if line.strip() and not line.startswith("#")]
    assert {word for word, _ in instructions} <= {
        "FROM", "WORKDIR", "COPY", "RUN", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert all(rest.split()[0].startswith("debian:12")
               for word, rest in instructions if word == "FROM")
    assert "apt-get" not in " ".join(rest for _, rest in instructions)
    sets = re.findall(r"packages\.sh (\w+)", " ".join(
        rest for word, rest in instructions if word == "RUN"))
    assert sets == ["build", "runtime"]
    for word, rest in instructions:
        if word == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert os.path.exists(os.path.join(SOURCE, source)), source


# --- Configurations -------------------------------------------------------------------------------


def test_there_is_an_example_for_each_purpose():
    names = {os.path.basename(path) for path in CONFIGS}
    assert {"minimal.yaml", "server.yaml", "container-rig.yaml", "full.yaml",
            "home-router.yaml"} <= names


@pytest.mark.parametrize("config", CONFIGS, ids=os.path.basename)
def test_example_is_accepted(config):
    run(SLUICE, "check", "--config", config)


def test_rules_of_the_home_router_are_taken_by_nft_also_twice():
    name = f"dt{os.getpid()}h"
    run("ip", "netns", "add", name)
    try:
        for link in ("lan0", "wan0"):
            run("ip", "-n", name, "link", "add", link, "type", "veth", "peer", "name", f"{link}p")
        rules = os.path.join(SOURCE, "config/home-router.nft")
        run("ip", "netns", "exec", name, "nft", "--check", "--file", rules)
        for _ in range(2):
            run("ip", "netns", "exec", name, "nft", "--file", rules)
        listed = run("ip", "netns", "exec", name, "nft", "list", "ruleset").stdout
        assert listed.count("table ") == 1
        for words in ("masquerade", "dnat ip to 192.168.1.10:80", "limit rate over 20/second",
                      "policy drop", "size set rt mtu", "fib saddr . iif oif missing"):
            assert words in listed, words
        assert yaml.safe_load(read("config/home-router.yaml"))["linux"]["nftables"] == \
            os.path.basename(rules)
    finally:
        run("ip", "netns", "del", name)


def test_unknown_key_is_an_error_with_its_place(tmp_path):
    config = tmp_path / "bad.yaml"
    config.write_text("interfaces:\n  - name: lan0\n    colour: green\n")
    said = run(SLUICE, "check", "--config", str(config), check=False)
    assert said.returncode == 2
    assert f"{config}:3:5: " in said.stdout


# --- The rig --------------------------------------------------------------------------------------


def namespaces():
    return set(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else set()


@pytest.fixture
def rig_name():
    name = f"dt{os.getpid()}"
    yield name
    run(RIG, "down", "--name", name, check=False)


def rig(name, action, *arguments, **options):
    return run(RIG, action, "--name", name, *arguments, **options)


def test_rig_routes_by_the_kernel_and_leaves_nothing(rig_name):
    before = namespaces()
    rig(rig_name, "up", "--hosts", "3", "--queues", "2")
    assert namespaces() - before == {f"{rig_name}-{host}" for host in ("router", "h1", "h2", "h3")}
    for address in ("10.77.3.2", "fd77:0:0:3::2"):
        rig(rig_name, "exec", "h1", "ping", "-c", "1", "-W", "5", address)
    queues = rig(rig_name, "exec", "router", "ls", "/sys/class/net/h2/queues").stdout.split()
    assert sorted(queues) == ["rx-0", "rx-1", "tx-0", "tx-1"]
    assert "10.77.2.1/24" in rig(rig_name, "status").stdout
    assert rig(rig_name, "up", check=False).returncode == 1

    # A process inside does not keep a namespace alive.
    inside = subprocess.Popen(["ip", "netns", "exec", f"{rig_name}-h1", "sleep", "600"])
    wait_for(lambda: str(inside.pid) in run("ip", "netns", "pids", f"{rig_name}-h1").stdout)
    rig(rig_name, "down")
    assert inside.wait(timeout=10) != 0
    assert namespaces() == before
    assert not os.path.exists(f"/run/sluice-rig/{rig_name}")
    rig(rig_name, "down")


def test_rig_around_a_namespace_that_is_there_leaves_it_alone(rig_name):
    foreign = f"{rig_name}x"
    run("ip", "netns", "add", foreign)
    try:
        run("ip", "-n", foreign, "link", "set", "lo", "up")
        rig(rig_name, "up", "--netns", foreign, "--hosts", "left,right")
        links = run("ip", "-n", foreign, "-br", "link").stdout
        assert "left@" in links and "right@" in links
        rig(rig_name, "exec", "left", "ping", "-c", "1", "-W", "5", "10.77.1.1")
        rig(rig_name, "down")
        wait_for(lambda: "left" not in run("ip", "-n", foreign, "-br", "link").stdout)
        assert foreign in namespaces()
    finally:
        run("ip", "netns", "del", foreign)


@pytest.fixture
def container():
    """A process in a namespace of its own, as a container engine makes one: lo is down, nothing is
    forwarded, IPv6 is off."""
    process = subprocess.Popen(["unshare", "--net", "sh", "-c",
                                "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; exec sleep 600"])
    wait_for(lambda: read(f"/proc/{process.pid}/comm") == "sleep\n")
    yield process
    process.kill()
    process.wait()


def test_container_then_rig_then_sluice(rig_name, container, tmp_path):
    inside = ["nsenter", "--net", "--target", str(container.pid)]
    command = [*inside, SLUICE, "run", "--config", os.path.join(SOURCE, "config/container-rig.yaml"),
               "--control", str(tmp_path / "s.sock")]
    too_early = run(*command, check=False)
    assert too_early.returncode == 1 and "h1: there is no such interface" in too_early.stdout

    rig(rig_name, "up", "--netns", str(container.pid))
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        assert run(*inside, "cat", f"/proc/sys/net/{key}").stdout == "1\n"
    for address in ("10.77.2.2", "fd77:0:0:2::2"):
        rig(rig_name, "exec", "h1", "ping", "-c", "1", "-W", "5", address)
    log = tmp_path / "log"
    with open(log, "w", encoding="utf-8") as output:
        sluice = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output,
                                  stderr=subprocess.STDOUT)
    try:
        ready = run(SLUICE, "--control", command[-1], "wait-ready", "--timeout", "20", check=False)
        assert ready.returncode == 0, log.read_text()
        for address in ("10.77.2.2", "fd77:0:0:2::2"):
            rig(rig_name, "exec", "h1", "ping", "-c", "3", "-i", "0.2", "-W", "5", address)
        page = run(*inside, "curl", "-sS", "--max-time", "5", "http://127.0.0.1:9470/metrics").stdout
    finally:
        sluice.terminate()
        status = sluice.wait(timeout=20)
    assert status == 0, log.read_text()
    forwarded = re.findall(r'^sluice_forwarded_packets_total\{interface="h1".*\} (\d+)', page,
                           re.MULTILINE)
    assert sum(map(int, forwarded)) >= 6, log.read_text()
    rig(rig_name, "down")
    assert container.poll() is None


def test_rig_takes_names_that_are_words_to_ip(rig_name):
    rig(rig_name, "up", "--hosts", "a,dev,up")
    rig(rig_name, "exec", "a", "ping", "-c", "1", "-W", "5", "10.77.3.2")


@pytest.mark.parametrize("arguments", [
    ("--hosts", "0"), ("--hosts", "left,left"), ("--hosts", "router"), ("--queues", "none"),
    ("--hosts", "a-name-that-is-too-long"), ("--netns", "there-is-no-such-namespace")])
def test_rig_refuses_bad_arguments(rig_name, arguments):
    before = namespaces()
    assert rig(rig_name, "up", *arguments, check=False).returncode == 1
    assert namespaces() == before


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# --- Sluice as the unit runs it -------------------------------------------------------------------


def unit_capabilities():
    (line,) = [line for line in settings("sluice.service")
               if line.startswith("CapabilityBoundingSet=")]
    return {name.lower().removeprefix("cap_") for name in line.split("=")[1].split()}


def unlimited_locked_memory():
    """(command in front, capabilities) for what LimitMEMLOCK=infinity does in the unit.

    A container may not let root raise the limit; CAP_IPC_LOCK means the same to AF_XDP.
    """
    raise_it = ["prlimit", "--memlock=unlimited:unlimited"]
    return ([], {"ipc_lock"}) if run(*raise_it, "true", check=False).returncode else (raise_it, set())


class Running:
    """Sluice in a rig's router, with a capability bounding set and nothing else to lean on."""

    def __init__(self, name, directory, capabilities, environment=None):
        self.name = name
        self.control = str(directory / "sluice.sock")
        self.log = directory / "sluice.log"
        config = directory / "sluice.yaml"
        config.write_text("interfaces:\n  - name: h1\n  - name: h2\n")
        prefix, more = unlimited_locked_memory()
        bounding = ",".join(["-all"] + [f"+{name}" for name in sorted(capabilities | more)])
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", f"{name}-router", *prefix,
                 "setpriv", "--no-new-privs", f"--bounding-set={bounding}",
                 SLUICE, "run", "--config", str(config), "--control", self.control],
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)

    def wait_ready(self):
        return run(SLUICE, "--control", self.control, "wait-ready", "--timeout", "20", check=False)

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=20)


def test_unit_capabilities_suffice(rig_name, tmp_path):
    rig(rig_name, "up")
    sluice = Running(rig_name, tmp_path, unit_capabilities())
    try:
        assert sluice.wait_ready().returncode == 0, sluice.log.read_text()
        for address in ("10.77.2.2", "fd77:0:0:2::2"):
            rig(rig_name, "exec", "h1", "ping", "-c", "3", "-i", "0.2", "-W", "5", address)
        # For the router itself: this goes through the TAP device to the kernel's sockets.
        rig(rig_name, "exec", "h1", "ping", "-c", "1", "-W", "5", "10.77.2.1")
        scrape = rig(rig_name, "exec", "router", "curl", "-sS", "--max-time", "5",
                     "http://127.0.0.1:9470/metrics").stdout
    finally:
        assert sluice.stop() == 0, sluice.log.read_text()

    # The scrape is good Prometheus, and holds nothing that the table does not know.
    linted = subprocess.run(["promtool", "check", "metrics"], input=scrape, text=True,
                            capture_output=True, timeout=60, check=False)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    live = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", scrape, re.MULTILINE):
        live.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    assert {name: (METRICS | PARTS).get(name) for name in live} == live
    assert {"sluice_received_packets_total", "sluice_table_used", "sluice_build_info"} <= set(live)


def test_unit_has_a_watchdog_that_is_fed(rig_name, tmp_path):
    (patience,) = [int(line.split("=")[1]) for line in settings("sluice.service")
                   if line.startswith("WatchdogSec=")]
    rig(rig_name, "up")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(patience / 4)
        sluice = Running(rig_name, tmp_path, unit_capabilities(),
                         {"NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            for word in (b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"):
                while word not in systemd.recv(1000).splitlines():
                    pass
        finally:
            assert sluice.stop() == 0, sluice.log.read_text()


@pytest.mark.parametrize("capability", sorted(unit_capabilities()))
def test_unit_has_no_capability_to_spare(rig_name, tmp_path, capability):
    assert os.access(SLUICE, os.X_OK)
    rig(rig_name, "up")
    sluice = Running(rig_name, tmp_path, unit_capabilities() - {capability})
    try:
        status = sluice.process.wait(timeout=30)
    finally:
        sluice.process.kill()
        sluice.process.wait()
    assert status == 1
    assert f"CAP_{capability.upper()} missing" in sluice.log.read_text()


# --- Installation ---------------------------------------------------------------------------------


def tree(root):
    return {os.path.join("/", os.path.relpath(os.path.join(place, name), root))
            for place, _, names in os.walk(root) for name in names}


def test_install_and_uninstall(tmp_path):
    install = ["env", f"DESTDIR={tmp_path}", os.path.join(DEPLOY, "install.sh"),
               "--prefix", "/opt/sluice"]
    build = ["--build", os.path.dirname(SLUICE), "--no-packages"]

    run(*install, *build)
    files = tree(tmp_path)
    assert {"/opt/sluice/bin/sluice", "/etc/sluice/sluice.yaml",
            "/opt/sluice/share/doc/sluice/LICENSE", "/opt/sluice/share/sluice/config/full.yaml",
            "/opt/sluice/share/sluice/prometheus/alerts.yml",
            "/opt/sluice/share/sluice/grafana/sluice.json"} <= files
    for unit in UNITS:
        text = (tmp_path / "etc/systemd/system" / unit).read_text()
        assert "/opt/sluice/bin/sluice run" in text and "/usr/local" not in text
    examples = sorted(tmp_path.glob("opt/sluice/share/sluice/config/*.yaml"))
    assert [path.name for path in examples] == [os.path.basename(path) for path in CONFIGS]
    for config in (*examples, tmp_path / "etc/sluice/sluice.yaml"):
        run(str(tmp_path / "opt/sluice/bin/sluice"), "check", "--config", str(config))

    # An upgrade keeps the administrator's configuration.
    mine = tmp_path / "etc/sluice/sluice.yaml"
    mine.write_text("interfaces: [{name: eth7}]\n")
    run(*install, *build)
    assert "eth7" in mine.read_text()

    run(*install, "--uninstall")
    assert tree(tmp_path) == {"/etc/sluice/sluice.yaml"}


def test_install_without_systemd(tmp_path):
    run("env", f"DESTDIR={tmp_path}", os.path.join(DEPLOY, "install.sh"), "--no-systemd",
        "--no-packages", "--build", os.path.dirname(SLUICE))
    assert not [path for path in tree(tmp_path) if path.endswith(".service")]


@pytest.mark.parametrize("prefix", ["relative", "/opt/../etc", "/", "/a b", "/x#y"])
def test_install_refuses_a_bad_prefix(tmp_path, prefix):
    done = run("env", f"DESTDIR={tmp_path}", os.path.join(DEPLOY, "install.sh"), "--uninstall",
               "--prefix", prefix, check=False)
    assert done.returncode == 2
