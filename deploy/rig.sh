#!/usr/bin/env bash
# Hosts around a router, as network namespaces joined by veth pairs: a place to try Sluice in.
#
#   rig.sh up [--name NAME] [--hosts N|NAME,NAME...] [--queues N] [--netns NS|PID|PATH]
#   rig.sh exec [--name NAME] HOST|router COMMAND...
#   rig.sh status [--name NAME]
#   rig.sh down [--name NAME]
#
#          NAME-h1                    NAME-router                    NAME-h2
#    +----------------+        +------------------------+        +----------------+
#    | eth0  .1.2/24  |--veth--| h1 .1.1/24  .2.1/24 h2 |--veth--| eth0  .2.2/24  |
#    +----------------+        +------------------------+        +----------------+
#
# Host number I has 10.77.I.2/24 and fd77:0:0:I::2/64 and its default routes through the router's
# .1 and ::1; on the router's side the interface is called after the host. The veth pairs keep
# Linux's default offloads, as containers have them, but for GRO, which is on at the hosts' ends: a
# veth end takes frames that the other end's XDP program sends only if it has NAPI, and GRO gives it
# NAPI. Without, Sluice works as well, but its workers carry everything. Forwarding is on in the
# router, so the kernel routes until Sluice does:
#
#   rig.sh up && rig.sh exec router sluice run --config config/container-rig.yaml
#
# --name    several rigs may stand at once; default "sluice-rig"
# --hosts   how many (h1, h2, ...) or their names (left,right); default 2
# --queues  RX and TX queues of every veth; default 1
# --netns   build around a namespace that is there already, such as a container's: the name of one
#           in /run/netns, a process id, or a path. lo is brought up there, and forwarding turned on.
#           `down` then takes the veth pairs away and nothing else.
#
# The state is in /run/sluice-rig/NAME. `down` ends every process inside the namespaces that `up`
# made, and is safe to repeat.
set -euo pipefail

STATE_ROOT=/run/sluice-rig

die() {
  echo "rig.sh: $*" >&2
  exit 1
}

usage() {
  sed -n '4,7s/^#   //p' "$0" >&2
  exit 2
}

# in_ns HOST COMMAND... : HOST is a host's name or "router".
in_ns() {
  local host=$1
  shift
  ip netns exec "$NAME-$host" "$@"
}

# write_sysctl HOST VALUE FILE... : /proc/sys/net shows the namespace of the process that opens it.
write_sysctl() {
  local host=$1 value=$2
  shift 2
  # shellcheck disable=SC2016
  in_ns "$host" sh -c 'value=$1; shift; for f; do echo "$value" > "/proc/sys/net/$f" || exit; done' \
    sh "$value" "$@"
}

list_hosts() {
  cat "$STATE/hosts"
}

# Host names from "3" (h1 h2 h3) or "left,right".
expand_hosts() {
  local i
  if [[ $HOSTS =~ ^[0-9]+$ ]]; then
    for ((i = 1; i <= HOSTS; i++)); do echo "h$i"; done
  else
    tr ',' '\n' <<< "$HOSTS"
  fi
}

check_arguments() {
  local host
  [[ $NAME =~ ^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$ ]] || die "bad --name '$NAME'"
  [[ $QUEUES =~ ^[1-9][0-9]{0,2}$ ]] || die "bad --queues '$QUEUES'"
  mapfile -t host_names < <(expand_hosts)
  ((${#host_names[@]} >= 1 && ${#host_names[@]} <= 250)) || die "--hosts wants 1 to 250 hosts"
  for host in "${host_names[@]}"; do
    # An interface name has at most 15 characters, and the router's ends are named after the hosts.
    [[ $host =~ ^[a-z][a-z0-9_-]{0,14}$ && $host != router && $host != lo ]] ||
      die "bad host name '$host' (a-z, 0-9, _ and -, at most 15, not 'router')"
  done
  [ "$(printf '%s\n' "${host_names[@]}" | sort -u | wc -l)" -eq "${#host_names[@]}" ] ||
    die "the hosts' names must differ"
}

# "default" too, for interfaces that are still to come.
forward_in_router() {
  write_sysctl router 1 ipv4/ip_forward ipv4/conf/default/forwarding \
    ipv6/conf/all/forwarding ipv6/conf/default/forwarding
}

# Gives the router's namespace the name NAME-router.
make_router() {
  if [ -z "$NETNS" ]; then
    ip netns add "$NAME-router"
    echo own > "$STATE/router"
    in_ns router ip link set dev lo up
    forward_in_router
    # Nobody else can have these addresses, so nobody has to wait for duplicate detection.
    write_sysctl router 0 ipv6/conf/all/accept_dad ipv6/conf/default/accept_dad
    return
  fi
  local path=$NETNS
  [[ $NETNS =~ ^[0-9]+$ ]] && path=/proc/$NETNS/ns/net
  [[ $path == */* ]] || path=/run/netns/$path
  [ -e "$path" ] || die "--netns $NETNS: no $path"
  mkdir -p /run/netns
  touch "/run/netns/$NAME-router"
  echo foreign > "$STATE/router"
  mount --bind "$path" "/run/netns/$NAME-router"
  in_ns router ip link set dev lo up  # Sluice's metrics listen there
  # Engines turn IPv6 off in containers: not for the rig's interfaces.
  { write_sysctl router 0 ipv6/conf/default/disable_ipv6 && forward_in_router; } ||
    echo "rig.sh: $path does not let its sysctls be set; forwarding is as it was" >&2
}

# make_host NAME INDEX
make_host() {
  local host=$1 i=$2 queues="numtxqueues $QUEUES numrxqueues $QUEUES"
  ip netns add "$NAME-$host"
  write_sysctl "$host" 0 ipv6/conf/all/accept_dad ipv6/conf/default/accept_dad \
    ipv6/conf/default/accept_ra
  # Both ends are born inside their namespaces, so no name can clash outside.
  # shellcheck disable=SC2086
  ip link add name "$host" netns "$NAME-router" $queues \
    type veth peer name eth0 netns "$NAME-$host" $queues

  in_ns router ip addr add "10.77.$i.1/24" dev "$host"
  in_ns router ip addr add "fd77:0:0:$i::1/64" dev "$host" nodad
  in_ns router ip link set dev "$host" up
  in_ns "$host" ip link set dev lo up
  in_ns "$host" ip addr add "10.77.$i.2/24" dev eth0
  in_ns "$host" ip addr add "fd77:0:0:$i::2/64" dev eth0 nodad
  in_ns "$host" ip link set dev eth0 up
  # For XDP (see above), and only now: Linux 6.18 does not tell the other end of it while the link is
  # down. A machine without ethtool has a rig all the same.
  ! command -v ethtool >/dev/null || in_ns "$host" ethtool -K eth0 gro on >/dev/null
  in_ns "$host" ip route add default via "10.77.$i.1"
  in_ns "$host" ip -6 route add default via "fd77:0:0:$i::1"
}

# The kernel reports a carrier up to a second after it is there.
wait_up() {
  local tries
  for ((tries = 0; tries < 100; tries++)); do
    ip -n "$NAME-$1" link show dev "$2" | grep -q 'state UP' && return
    sleep 0.05
  done
  die "$2 in $NAME-$1 does not come up"
}

rig_up() {
  local i=0 host
  check_arguments
  [ ! -e "$STATE" ] || die "a rig '$NAME' is up already (rig.sh down --name $NAME)"
  for host in router "${host_names[@]}"; do
    [ ! -e "/run/netns/$NAME-$host" ] || die "there is a namespace $NAME-$host already"
  done
  mkdir -p "$STATE"
  printf '%s\n' "${host_names[@]}" > "$STATE/hosts"
  trap 'echo "rig.sh: up failed, taking the rig down" >&2; rig_down' EXIT
  make_router
  for host in "${host_names[@]}"; do
    i=$((i + 1))
    make_host "$host" "$i"
  done
  for host in "${host_names[@]}"; do
    wait_up "$host" eth0
    wait_up router "$host"
  done
  trap - EXIT
}

# Ends the processes inside a namespace: asks first, and waits up to 3 seconds.
end_processes() {
  local ns=$1 pids tries
  [ -e "/run/netns/$ns" ] || return 0
  pids=$(ip netns pids "$ns" 2>/dev/null || true)
  [ -n "$pids" ] || return 0
  # shellcheck disable=SC2086
  kill -TERM $pids 2>/dev/null || true
  for ((tries = 0; tries < 60; tries++)); do
    pids=$(ip netns pids "$ns" 2>/dev/null || true)
    [ -n "$pids" ] || return 0
    sleep 0.05
  done
  # shellcheck disable=SC2086
  kill -KILL $pids 2>/dev/null || true
}

rig_down() {
  local host router
  [ -e "$STATE" ] || return 0
  router=$(cat "$STATE/router" 2>/dev/null || echo none)
  if [ "$router" = own ]; then
    end_processes "$NAME-router"
  fi
  for host in $(list_hosts); do
    end_processes "$NAME-$host"
    # A pair dies with either end; a foreign router must not have to wait for the namespace's end.
    if [ "$router" != none ] && [ -e "/run/netns/$NAME-$host" ]; then
      ip -n "$NAME-$host" link del dev eth0 2>/dev/null || true
    fi
    [ ! -e "/run/netns/$NAME-$host" ] || ip netns del "$NAME-$host"
  done
  [ ! -e "/run/netns/$NAME-router" ] || ip netns del "$NAME-router"
  rm -rf "$STATE"
  rmdir "$STATE_ROOT" 2>/dev/null || true
}

rig_status() {
  local host
  [ -e "$STATE" ] || { echo "rig $NAME: down"; exit 1; }
  echo "rig $NAME: up, router namespace $NAME-router ($(cat "$STATE/router"))"
  for host in router $(list_hosts); do
    echo
    echo "$NAME-$host"
    in_ns "$host" ip -br addr show scope global | sed 's/^/  /'
    in_ns "$host" ip -br link show type veth | awk '{ print "  " $1, $2, $3 }' | column -t |
      sed 's/^/  /'
  done
}

rig_exec() {
  local host=$1
  shift
  [ -e "$STATE" ] || die "rig '$NAME' is down (rig.sh up --name $NAME)"
  [ -e "/run/netns/$NAME-$host" ] || die "no host '$host' here: router $(list_hosts | tr '\n' ' ')"
  exec ip netns exec "$NAME-$host" "$@"
}

NAME=sluice-rig HOSTS=2 QUEUES=1 NETNS=
host_names=()
[ "$#" -ge 1 ] || usage
action=$1
shift
while [ "$#" -gt 0 ]; do
  case "$1" in
    --name | --hosts | --queues | --netns)
      [ "$#" -ge 2 ] || usage
      declare "$(tr '[:lower:]' '[:upper:]' <<< "${1#--}")=$2"
      shift 2
      ;;
    --name=* | --hosts=* | --queues=* | --netns=*)
      option=${1%%=*}
      declare "$(tr '[:lower:]' '[:upper:]' <<< "${option#--}")=${1#*=}"
      shift
      ;;
    -*) usage ;;
    *) break ;;
  esac
done
STATE=$STATE_ROOT/$NAME
[ "$action" = -h ] || [ "$action" = --help ] || [ "$(id -u)" -eq 0 ] ||
  die "this needs root (try: sudo $0 $action ...)"
case "$action" in
  up) [ "$#" -eq 0 ] || usage; rig_up ;;
  exec) [ "$#" -ge 2 ] || usage; rig_exec "$@" ;;
  status) [ "$#" -eq 0 ] || usage; rig_status ;;
  down) [ "$#" -eq 0 ] || usage; rig_down ;;
  -h | --help) sed -n '2,33s/^# \{0,1\}//p' "$0" ;;
  *) usage ;;
esac
