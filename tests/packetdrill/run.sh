#!/bin/bash
# Packetdrill's own TCP scripts against the transport stack, and whether each fares as `expectations`
# says.
#
#   PACKETDRILL=.../packetdrill PACKETDRILL_SCRIPTS=.../gtests/net/tcp \
#       tests/packetdrill/run.sh build/libsluice_packetdrill.so [script...]
#
# Without packetdrill it says so and ends with 77, which ctest shows as skipped. Each script runs over
# IPv4 and IPv6 in a network namespace of its own, on a virtual clock. Needs root. With scripts named
# (paths below PACKETDRILL_SCRIPTS) it runs those, and shows what packetdrill says.
set -u
here=$(cd "$(dirname "$0")" && pwd)
library=$(realpath "${1:?the shared object}")
shift
if [ ! -x "${PACKETDRILL:-}" ] || [ ! -d "${PACKETDRILL_SCRIPTS:-}" ]; then
  echo "skipped: PACKETDRILL is to name the program, PACKETDRILL_SCRIPTS its gtests/net/tcp"
  exit 77
fi
PACKETDRILL=$(realpath "$PACKETDRILL")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# once VERSION SCRIPT: in a namespace with the interface that scripts give a queueing discipline to.
once() {
  local addresses="--local_ip=192.168.0.1 --remote_ip=192.0.2.1 --netmask_ip=255.255.0.0" mtu=1500
  local names="-D TFO_COOKIE=3021b9d889017eeb -D CODE=host_unreachable"
  if [ "$1" = ipv6 ]; then
    # The scripts say 1460 for the segment size; packetdrill's runner makes that true as well.
    addresses="--local_ip=fd3d:fa7b:d17d::1 --remote_ip=fd3d:fa7b:d17d:8888::1" mtu=1520
    names="-D TFO_COOKIE=c1d1e9742a47a9bc -D CODE=address_unreachable"
  fi
  local run="ip link set lo up; ip tuntap add dev tun0 mode tun; ip link set tun0 up
    LD_PRELOAD=$library exec $PACKETDRILL --so_filename=$library \
      --so_flags=local=192.168.0.1,local6=fd3d:fa7b:d17d::1,mtu=$mtu \
      --ip_version=$1 $addresses --tolerance_usecs=15000 $names $(basename "$2")"
  (cd "$(dirname "$2")" && timeout 60 unshare -n sh -c "$run")
}

if [ $# -gt 0 ]; then
  for script in "$@"; do
    for version in ipv4 ipv6; do
      echo "== $script $version"
      once "$version" "$PACKETDRILL_SCRIPTS/$script" && echo "pass"
    done
  done
  exit 0
fi

# expectations: SCRIPT  pass | pass4 | no  REASON
passed=0 failed=0 other=0 surprises=0
while read -r script expected reason; do
  case "$script" in ''|'#'*) continue ;; esac
  result=""
  for version in ipv4 ipv6; do
    [[ $expected = no && $result = f ]] && continue
    if once "$version" "$PACKETDRILL_SCRIPTS/$script" >"$work/out" 2>&1; then
      result+=p
    else
      result+=f
      cp "$work/out" "$work/$version"
    fi
  done
  case "$expected:$result" in
    pass:pp|pass4:pf) passed=$((passed + 1)) ;;
    pass:*|pass4:f*)
      failed=$((failed + 1)) surprises=$((surprises + 1))
      echo "FAILED $script"
      sed 's/^/    /' "$work"/ipv[46]
      ;;
    no:pp)
      surprises=$((surprises + 1))
      echo "PASSES, though not expected to: $script ($reason)"
      ;;
    pass4:pp)
      surprises=$((surprises + 1))
      echo "PASSES over IPv6 too, though not expected to: $script ($reason)"
      ;;
    no:*) other=$((other + 1)) ;;
    *)
      surprises=$((surprises + 1))
      echo "what is expected of $script? $expected"
      ;;
  esac
  rm -f "$work"/ipv[46]
done <"$here/expectations"
listed=$(grep -cv '^#\|^$' "$here/expectations")
there=$(find "$PACKETDRILL_SCRIPTS" -name '*.pkt' | wc -l)
echo "$passed of $listed scripts pass, $other do not apply, $failed fail ($there scripts found)"
[ "$surprises" -eq 0 ]
