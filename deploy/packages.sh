#!/usr/bin/env bash
# The one list of Debian packages that Sluice needs, and a function that installs what is missing.
#
#   deploy/packages.sh SET...          install the missing packages of these sets (needs root)
#   deploy/packages.sh --list SET...   print the packages of these sets, one per line
#
# Sets: build, demo, test, bench, vm, runtime. Scripts source this file and call
# sluice_install_packages; the Dockerfile runs it. Nothing is fetched, and apt is not even started,
# when all is there.
#
# Several of these packages bring a daemon (nginx, bird, prometheus, ssh, haproxy, dnsdist). None of
# them is started and none is left enabled for the next boot: here they are tools, run by hand
# inside namespaces.
# A daemon that was installed before is left as it was, and no package is ever removed.

# To compile everything, tests and benchmarks included.
SLUICE_PACKAGES_BUILD=(
  build-essential cmake ninja-build ccache pkg-config
  clang llvm bpftool libbpf-dev libxdp-dev libelf-dev zlib1g-dev
  libnl-3-dev libnl-route-3-dev libnftables-dev libnetfilter-conntrack-dev
  libabsl-dev prometheus-cpp-dev libyaml-cpp-dev nlohmann-json3-dev libcpp-httplib-dev
  libcli11-dev libspdlog-dev libsystemd-dev libpcap-dev libhttp-parser-dev
  libgtest-dev libgmock-dev libbenchmark-dev
)
# What deploy/demo.sh and deploy/rig.sh run.
# netbase: the names of protocols in rules.
SLUICE_PACKAGES_DEMO=(
  iproute2 iputils-ping iperf3 curl nginx ethtool procps bsdextrautils nftables netbase
)
# What the tests run besides (prometheus for promtool, libclang-rt for the fuzzers' sanitizers,
# systemd for systemd-analyze verify, busybox for udhcpc).
SLUICE_PACKAGES_TEST=(
  "${SLUICE_PACKAGES_DEMO[@]}"
  iputils-arping iputils-tracepath traceroute netcat-openbsd tcpdump nftables nmap
  openssh-client openssh-server bird2 prometheus conntrack knot-dnsutils dnsmasq-base busybox-static python3-pyftpdlib systemd libcap2-bin
  python3-pytest python3-scapy python3-yaml libclang-rt-14-dev
)
# What benchmarks/run.sh runs, and tests/vm/run.sh on the machine and inside the guest.
SLUICE_PACKAGES_BENCH=(
  iproute2 ethtool procps python3 nftables conntrack iperf3 haproxy wrk dnsdist dnsperf
)
SLUICE_PACKAGES_VM=(
  qemu-system-x86 busybox-static cpio kmod xz-utils zstd python3
  iproute2 nftables iputils-ping iperf3 curl ethtool util-linux
)
# What the installed program needs (netbase for names in `linux.nftables`), and `ip` for whoever looks
# around (the last stage of deploy/Dockerfile).
SLUICE_PACKAGES_RUNTIME=(
  libbpf1 libxdp1 libelf1 zlib1g libnl-3-200 libnl-route-3-200 libnftables1 libabsl20220623
  libprometheus-cpp-core1.0 libyaml-cpp0.7 libcpp-httplib0.11 libspdlog1.10 libfmt9 libsystemd0 libpcap0.8
  libhttp-parser2.9
  iproute2 netbase
)

# Daemons that the packages above bring and would enable.
SLUICE_PACKAGE_UNITS=(nginx bird prometheus ssh iperf3 haproxy dnsdist)

sluice_require_root() {
  if [ "$(id -u)" -ne 0 ]; then
    echo "$0: this needs root (try: sudo $0)" >&2
    exit 1
  fi
}

# sluice_packages SET... : the packages of these sets, one per line, each once.
sluice_packages() {
  local set
  for set in "$@"; do
    case "$set" in
      build) printf '%s\n' "${SLUICE_PACKAGES_BUILD[@]}" ;;
      demo) printf '%s\n' "${SLUICE_PACKAGES_DEMO[@]}" ;;
      test) printf '%s\n' "${SLUICE_PACKAGES_TEST[@]}" ;;
      bench) printf '%s\n' "${SLUICE_PACKAGES_BENCH[@]}" ;;
      vm) printf '%s\n' "${SLUICE_PACKAGES_VM[@]}" ;;
      runtime) printf '%s\n' "${SLUICE_PACKAGES_RUNTIME[@]}" ;;
      *)
        echo "packages.sh: no package set '$set' (build, demo, test, bench, vm, runtime)" >&2
        return 2
        ;;
    esac
  done | awk '!seen[$0]++'
  return "${PIPESTATUS[0]}"
}

SLUICE_POLICY=/usr/sbin/policy-rc.d

# Keeps package scripts from starting daemons while the calling shell lives. Call it in a subshell:
# the previous policy-rc.d, if any, comes back when that subshell ends, however it ends.
sluice_hold_services() {
  # An earlier run that was killed may have left ours in place; the saved one is then the true one.
  if [ -e "$SLUICE_POLICY" ] && [ ! -e "$SLUICE_POLICY.before-sluice" ] &&
    ! grep -qs sluice_hold_services "$SLUICE_POLICY"; then
    mv "$SLUICE_POLICY" "$SLUICE_POLICY.before-sluice"
  fi
  trap sluice_release_services EXIT
  printf '#!/bin/sh\n# Written by sluice_hold_services; removed when apt-get is done.\nexit 101\n' \
    > "$SLUICE_POLICY"
  chmod 755 "$SLUICE_POLICY"
}

sluice_release_services() {
  rm -f "$SLUICE_POLICY"
  if [ -e "$SLUICE_POLICY.before-sluice" ]; then
    mv "$SLUICE_POLICY.before-sluice" "$SLUICE_POLICY"
  fi
}

# sluice_install_packages SET... : installs what is missing of these sets, and nothing else.
sluice_install_packages() {
  local wanted present missing new_units=() unit
  wanted=$(sluice_packages "$@" | sort) || return
  # dpkg-query fails when it does not know one of them, and still tells of the others.
  # shellcheck disable=SC2086
  present=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $wanted 2>/dev/null |
    sed -n 's/^installed //p' | sort -u || true)
  mapfile -t missing < <(comm -23 <(echo "$wanted") <(echo "$present"))
  [ "${#missing[@]}" -eq 0 ] && return 0
  for unit in "${SLUICE_PACKAGE_UNITS[@]}"; do
    [ -e "/lib/systemd/system/$unit.service" ] || new_units+=("$unit.service")
  done

  echo "Installing ${#missing[@]} Debian packages: ${missing[*]}"
  (
    sluice_hold_services
    export DEBIAN_FRONTEND=noninteractive
    apt-get -q -o DPkg::Lock::Timeout=300 update &&
      apt-get -q -y -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 \
        install --no-install-recommends --no-remove "${missing[@]}"
  ) </dev/null || {
    echo "packages.sh: apt-get could not install what is missing; its message is above." >&2
    echo "Sluice needs Debian 12 and a working package source (see /etc/apt/sources.list)." >&2
    return 1
  }
  for unit in "${new_units[@]}"; do
    sluice_disable_unit "$unit"
  done
}

# sluice_disable_unit UNIT : not at the next boot either. Works with and without a running systemd.
sluice_disable_unit() {
  if [ -e "/lib/systemd/system/$1" ] && command -v systemctl >/dev/null; then
    systemctl --quiet disable "$1" 2>/dev/null ||
      echo "packages.sh: could not disable $1; it may start at the next boot" >&2
  fi
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  if [ "$#" -eq 0 ] || [ "$1" = -h ] || [ "$1" = --help ]; then
    sed -n '2,14s/^# \{0,1\}//p' "$0"
    [ "$#" -gt 0 ] && exit 0 || exit 2
  fi
  if [ "$1" = --list ]; then
    shift
    sluice_packages "$@"
  else
    sluice_require_root
    sluice_install_packages "$@"
  fi
fi
