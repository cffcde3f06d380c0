#!/bin/bash
# Runs in the guest: left host - router - right host, over the machine's four network cards. First
# the kernel forwards, then Sluice, then the kernel again. Speaks in lines "VM CHECK NAME pass|fail"
# and ends with one "VM RESULT ..." line.
RIGHT4=10.2.0.2 RIGHT6=fd00:2::2
failed=
mode=$(sed -n 's/.*vm_mode=\([^ ]*\).*/\1/p' /proc/cmdline)
nic=$(sed -n 's/.*vm_nic=\([^ ]*\).*/\1/p' /proc/cmdline)

on() {
  space=$1
  shift
  ip netns exec "$space" "$@"
}

# check NAME COMMAND... : the command's output is shown only when it fails.
check() {
  name=$1
  shift
  if "$@" > /tmp/output 2>&1; then
    echo "VM CHECK $name pass"
  else
    echo "VM CHECK $name fail"
    sed 's/^/VM OUTPUT /' /tmp/output | tail -n 20
    failed="$failed $name"
  fi
}

# within SECONDS COMMAND... : tries it until it works.
within() {
  limit=$(($(date +%s) + $1))
  shift
  until "$@"; do
    [ "$(date +%s)" -lt "$limit" ] || return 1
    sleep 0.2
  done
}

interface_of() {
  for path in /sys/class/net/*; do
    [ "$(cat "$path/address")" = "$1" ] && basename "$path" && return 0
  done
  return 1
}

have_cards() {
  for number in 0 1 2 3; do
    interface_of "02:00:00:00:00:0$number" > /dev/null || return 1
  done
}

# place NUMBER NAMESPACE NAME ADDRESS4 ADDRESS6
place() {
  ip link set "$(interface_of "02:00:00:00:00:0$1")" netns "$2" name "$3"
  on "$2" sysctl -qw "net.ipv6.conf.$3.accept_dad=0"
  ip -n "$2" address add "$4" dev "$3"
  ip -n "$2" address add "$5" dev "$3" nodad
  ip -n "$2" link set "$3" up
}

build_network() {
  for space in left router right; do
    ip netns add "$space"
    ip -n "$space" link set lo up
  done
  place 0 left eth0 10.1.0.2/24 fd00:1::2/64
  place 1 router lan0 10.1.0.1/24 fd00:1::1/64
  place 2 router wan0 10.2.0.1/24 fd00:2::1/64
  place 3 right eth0 10.2.0.2/24 fd00:2::2/64
  on router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
  ip -n left route add default via 10.1.0.1
  ip -n left route add default via fd00:1::1
  ip -n right route add default via 10.2.0.1
  ip -n right route add default via fd00:2::1
}

# Answers on the right: a file with a known checksum and an iperf3 server.
start_servers() {
  mkdir -p /tmp/www
  head -c 3000000 /dev/urandom > /tmp/www/file
  on right httpd -h /tmp/www -p 80
  on right iperf3 -s -D
}

same_file() {
  on left curl -sS -g --max-time 60 -o /tmp/got "http://$1/file" &&
    cmp /tmp/got /tmp/www/file
}

ping_through() {
  on left ping -c 5 -i 0.2 -W 5 "$1"
}

# traffic WHO
traffic() {
  check "$1-ping4" ping_through "$RIGHT4"
  check "$1-ping6" ping_through "$RIGHT6"
  check "$1-download4" same_file "$RIGHT4"
  check "$1-download6" same_file "[$RIGHT6]"
}

# Both cards served as this driver allows; the line goes into the table.
serves_in_mode() {
  control show interfaces --json > /tmp/interfaces.json || return 1
  echo "VM JSON $(tr -d '\n' < /tmp/interfaces.json)" > /dev/console
  [ "$(grep -oE "\"mode\": *\"$mode\"" /tmp/interfaces.json | wc -l)" -eq 2 ]
}

control() { on router sluice --control /run/sluice.sock "$@"; }

start_sluice() {
  printf 'interfaces:\n  - name: lan0\n  - name: wan0\n' > /tmp/sluice.yaml
  # Not by `on`: the pid must be Sluice's own, not that of a shell around a function.
  ip netns exec router sluice --control /run/sluice.sock run --config /tmp/sluice.yaml \
    > /tmp/sluice.log 2>&1 &
  sluice_pid=$!
  if ! control wait-ready --timeout 60; then
    cat /tmp/sluice.log
    return 1
  fi
}

# One metric of an interface, summed over workers (and reasons).
metric() {
  awk -v name="$1" -v label="interface=\"$2\"" '
    index($1, name "{") == 1 && index($0, label) {sum += $NF} END {printf "%d\n", sum}' /tmp/metrics
}

conserved() {
  on router curl -sS --max-time 20 -o /tmp/metrics http://127.0.0.1:9470/metrics || return 1
  for interface in lan0 wan0; do
    received=$(metric sluice_received_packets_total $interface)
    sum=0
    for part in forwarded_packets_total local_packets_total punted_packets_total \
      dropped_packets_total merged_packets_total held_packets; do
      sum=$((sum + $(metric sluice_$part $interface)))
    done
    echo "$interface received $received accounted $sum"
    [ "$received" -gt 0 ] && [ "$received" -eq "$sum" ] || return 1
  done
}

# Sluice must have forwarded it, not the kernel behind its back.
forwarded_by_sluice() {
  before=$(cat /tmp/forwarded 2> /dev/null || echo 0)
  on router curl -sS --max-time 20 -o /tmp/metrics http://127.0.0.1:9470/metrics || return 1
  now=$(metric sluice_forwarded_packets_total lan0)
  echo "forwarded before $before now $now"
  [ "$now" -gt $((before + 1000)) ]
}

# Packets that each tier has carried, as `show status` has it: XDP, workers, the kernel.
tiers() {
  control show status --json > /tmp/status.json || return 1
  for tier in xdp worker kernel; do
    grep -oE "\"$tier\": *[0-9]+" /tmp/status.json | sed 's/.* *: *//'
  done | xargs
}

# Where XDP runs in the driver, it has carried most of what came since the last time; else nothing.
tier_carries() {
  read -r xdp worker _ <<< "$(tiers)"
  echo "in XDP $xdp, by workers $worker; before $(cat /tmp/tiers 2> /dev/null)"
  sed 's/.*"problems"/problems/' /tmp/status.json
  read -r xdp_before worker_before _ < /tmp/tiers || return 1
  if [ "$mode" = native ]; then
    [ $((xdp - xdp_before)) -gt 1000 ] && [ $((xdp - xdp_before)) -gt $((worker - worker_before)) ]
  else
    [ "$xdp" -eq 0 ] && [ $((worker - worker_before)) -gt 1000 ]
  fi
}

# The right host has no way back but to the router's own address there.
begin_nat() {
  on router nft -f - << 'RULES' || return 1
table inet nat {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    oifname "wan0" masquerade
  }
}
RULES
  ip -n right route del default && ip -n right -6 route del default
}

end_nat() {
  on router nft flush ruleset || return 1
  ip -n right route add default via 10.2.0.1 && ip -n right route add default via fd00:2::1
}

# nat WHO : what the right host answers has been translated.
nat() {
  check "$1-nat-rules" begin_nat
  check "$1-nat-ping4" within 20 ping_through "$RIGHT4"
  check "$1-nat-ping6" within 20 ping_through "$RIGHT6"
  check "$1-nat-download4" same_file "$RIGHT4"
  check "$1-nat-download6" same_file "[$RIGHT6]"
}

has_translated() {
  control show nat --json > /tmp/output-nat || return 1
  cat /tmp/output-nat
  [ "$(grep -oE '"mappings": *[0-9]+' /tmp/output-nat | grep -oE '[0-9]+$' | tail -n 1)" -ge 2 ]
}

stop_sluice() {
  kill -TERM "$sluice_pid"
  wait "$sluice_pid"
  status=$?
  [ "$status" -eq 0 ] || { cat /tmp/sluice.log; echo "exit status $status"; return 1; }
}

nothing_attached() {
  ! ip -n router link show | grep -w xdp
}

with_sluice() {
  check sluice-starts start_sluice
  [ -z "$failed" ] || return
  check sluice-mode serves_in_mode
  traffic sluice
  tiers > /tmp/tiers
  check sluice-iperf3 on left iperf3 -c "$RIGHT4" -t 5 --connect-timeout 10000
  sed -n 's/.* \([0-9.]* [KMG]bits.sec\).*receiver.*/VM SPEED \1/p' /tmp/output
  check sluice-iperf3-back on left iperf3 -c "$RIGHT6" -R -t 3 --connect-timeout 10000
  check sluice-forwarded forwarded_by_sluice
  check sluice-tier within 10 tier_carries
  nat sluice
  check sluice-nat-shown has_translated
  tiers > /tmp/tiers
  check sluice-nat-iperf3 on left iperf3 -c "$RIGHT4" -t 3 --connect-timeout 10000
  check sluice-nat-iperf3-back on left iperf3 -c "$RIGHT6" -R -t 3 --connect-timeout 10000
  check sluice-nat-tier within 10 tier_carries
  check sluice-nat-ends end_nat
  # The router itself, through the punt path.
  check sluice-ping-router on left ping -c 3 -i 0.2 -W 5 10.1.0.1
  check sluice-conservation within 20 conserved
  echo "VM TIERS $(tiers)"
  check sluice-stops stop_sluice
  check sluice-detached within 5 nothing_attached
}

echo "VM START kernel=$(uname -r) nic=$nic"
check cards within 60 have_cards
if [ -z "$failed" ]; then
  build_network
  start_servers
  check carrier within 30 ping_through "$RIGHT4"
  traffic kernel
  nat kernel
  check kernel-nat-ends end_nat
fi
if [ -z "$failed" ] && ! grep -q vm_kernel_only=yes /proc/cmdline; then
  with_sluice
  [ -n "$failed" ] || traffic kernel-again
fi
if [ -z "$failed" ]; then
  echo "VM RESULT kernel=$(uname -r) nic=$nic pass"
else
  [ ! -s /tmp/sluice.log ] || sed 's/^/VM LOG /' /tmp/sluice.log | tail -n 30
  echo "VM RESULT kernel=$(uname -r) nic=$nic fail$failed"
fi
