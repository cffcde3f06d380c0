#!/usr/bin/env bash
# Sluice at work, in under a minute after the build: two hosts with a Sluice router between them
# (network namespaces joined by veth pairs with the default offloads), ping, a download and iperf3
# through it, its counters and its tiers; a home router's firewall and NAT (config/home-router.nft),
# with a connection that outlives Sluice; the same without Sluice; a load balancer that loses a server;
# and what a small packet costs in XDP, in Sluice's workers and in the kernel.
#
#   sudo deploy/demo.sh [--keep]
#
# --keep leaves the two hosts and a running Sluice standing, and says how to look around.
#
# Nothing outside the namespaces is touched. Whatever happens, it cleans up after itself, and after
# an earlier run that could not. The last line is the verdict; exit status 0 means PASS.
set -Eeuo pipefail
exec </dev/null
cd "$(dirname "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh
# shellcheck source=deploy/packet_cost.sh
. deploy/packet_cost.sh
# shellcheck source=deploy/load_balancer.sh
. deploy/load_balancer.sh

BUILD=${SLUICE_BUILD:-build}  # the build directory, for who has another
NAME=sluice-demo
WORK=/var/cache/sluice-demo
CONTROL=$WORK/sluice.sock
LEFT4=10.77.1.2 ROUTER4=10.77.1.1 OUTSIDE4=10.77.2.1
RIGHT4=10.77.2.2 RIGHT6=fd77:0:0:2::2
FILE_MIB=64
KEEP=no
SLUICE_PID='' NGINX_PID='' LAN_NGINX_PID='' IPERF_PID=''
WEB_PIDS=('' '')  # load_balancer.sh
FAILED=()
REASON=
declare -A SPEED COST SHARE  # the last two: packet_cost.sh

case "${1:-}" in
  '') ;;
  --keep) KEEP=yes ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0"; [ "$1" = --help ] || [ "$1" = -h ] || exit 2; exit 0 ;;
esac

BOLD='' DIM='' RED='' GREEN='' PLAIN=''
exec 5>&1  # commands are shown here, also when their output goes elsewhere
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
fi

# --- Talking --------------------------------------------------------------------------------------

title() { printf '\n%s== %s%s\n' "$BOLD" "$*" "$PLAIN"; }
indent() { sed 's/^/    /'; }

# on HOST COMMAND... : runs it there, and shows it as "host$ command".
on() {
  printf '  %s%s$ %s%s\n' "$DIM" "$1" "${*:2}" "$PLAIN" >&5
  quietly_on "$@"
}
quietly_on() {
  ip netns exec "$NAME-$1" "${@:2}" 5>&- 9>&-
}
show_on() { on "$@" | indent; }

# verdict_on NAME STATUS : one finding, kept for the end.
verdict_on() {
  if [ "$2" -eq 0 ]; then
    printf '  %sok%s      %s\n' "$GREEN" "$PLAIN" "$1"
  else
    printf '  %sFAILED%s  %s\n' "$RED" "$PLAIN" "$1"
    FAILED+=("$1")
  fi
}
# check NAME COMMAND... : the command must succeed.
check() {
  local status=0
  "${@:2}" || status=$?
  verdict_on "$1" "$status"
}
give_up() {
  REASON=$1
  exit 1
}

# --- Beginning and end ----------------------------------------------------------------------------

stop_process() {
  local pid=$1 tries
  [ -n "$pid" ] || return 0
  kill -TERM "$pid" 2>/dev/null || return 0
  for ((tries = 0; tries < 100; tries++)); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.05
  done
  kill -KILL "$pid" 2>/dev/null || true
}

clean_up() {
  stop_process "$SLUICE_PID"
  stop_process "$IPERF_PID"
  stop_process "$NGINX_PID"
  stop_process "$LAN_NGINX_PID"
  stop_process "${WEB_PIDS[0]}"
  stop_process "${WEB_PIDS[1]}"
  deploy/rig.sh down --name "$NAME"
  rm -rf "$WORK"
}

finish() {
  local status=$?
  exec 1>&5  # the signal may have come while the output went to a file
  trap - EXIT ERR
  trap '' INT TERM HUP
  if [ "$status" -ne 0 ] && [ -s "$WORK/sluice.log" ]; then
    title "The last lines of Sluice's log"
    tail -n 20 "$WORK/sluice.log" | indent
  fi
  if [ "$KEEP" = yes ] && [ "$status" -eq 0 ]; then
    say_how_to_look_around
  else
    clean_up || REASON="${REASON:-cleaning up failed}"
  fi
  echo
  if [ "$status" -eq 0 ] && [ -z "$REASON" ]; then
    printf '%sPASS%s: Sluice forwarded, filtered, translated, balanced, and the kernel carried on.\n' \
      "$BOLD$GREEN" "$PLAIN"
    exit 0
  fi
  if [ -z "$REASON" ]; then
    REASON=$(printf '%s; ' "${FAILED[@]}")
    REASON=${REASON%; }
  fi
  printf '%sFAIL%s: %s\n' "$BOLD$RED" "$PLAIN" "$REASON"
  exit "$((status == 0 ? 1 : status))"
}

start_cleanly() {
  # Held by this shell alone (children close it), so it goes when the shell does, even killed.
  mkdir -p /run/lock  # some containers have none
  exec 9>/run/lock/sluice-demo.lock
  flock -n 9 || { echo "demo.sh: another demo is running" >&2; exit 1; }
  trap finish EXIT
  trap 'REASON=interrupted; exit 130' INT TERM HUP
  trap 'REASON=${REASON:-the demo broke at line $LINENO: $BASH_COMMAND}' ERR
  clean_up
}

say_how_to_look_around() {
  title "Left standing, with Sluice running"
  cat <<END
    sudo deploy/rig.sh exec --name $NAME left ping $RIGHT4
    sudo deploy/rig.sh exec --name $NAME router bash
    sudo $BUILD/sluice --control $CONTROL show rules        # or flows, nat, interfaces, ...
    sudo deploy/rig.sh exec --name $NAME router curl -s http://127.0.0.1:9470/metrics
  Log: $WORK/sluice.log. To take it all away:
    sudo deploy/rig.sh down --name $NAME && sudo rm -r $WORK
END
}

# --- The pieces -----------------------------------------------------------------------------------

build() {
  sluice_install_packages build demo || give_up "packages are missing"
  export HOME="${HOME:-/root}"
  mkdir -p "$WORK"
  echo "  cmake -S . -B $BUILD -G Ninja && cmake --build $BUILD --target sluice"
  if ! cmake -S . -B "$BUILD" -G Ninja >"$WORK/build.log" 2>&1; then
    tail -n 30 "$WORK/build.log"
    give_up "cmake cannot configure the build"
  fi
  cmake --build "$BUILD" --parallel "$(nproc)" --target sluice 9>&- || give_up "the build fails"
}

make_network() {
  local host
  echo "  deploy/rig.sh up --name $NAME --hosts left,right"
  deploy/rig.sh up --name "$NAME" --hosts left,right
  # The router's XDP program may send straight into a veth end that has NAPI, which GRO brings along
  # (rig.sh has seen to it). A network card needs nothing of the kind.
  for host in left right; do
    on "$host" ethtool -k eth0 | grep '^generic-receive-offload' | indent
  done
  deploy/rig.sh status --name "$NAME" | awk '/^ .*\// || /^[a-z]/ && NR > 1' | indent

  # The web server's worker is not root, and reads nothing but this.
  mkdir -p "$WORK/www"
  chmod 755 "$WORK" "$WORK/www"
  head -c "$((FILE_MIB << 20))" /dev/urandom > "$WORK/www/file"
  NGINX_PID=$(serve right 8080)
  LAN_NGINX_PID=$(serve left 80)
  ip netns exec "$NAME-right" iperf3 -s >/dev/null 2>&1 5>&- 9>&- &
  IPERF_PID=$!
  wait_listening right 8080
  wait_listening right 5201
  wait_listening left 80
}

# serve HOST PORT : a web server that also tells who asks; prints its process id.
serve() {
  cat > "$WORK/nginx-$1-$2.conf" <<END
worker_processes 1;
pid $WORK/nginx-$1-$2.pid;
error_log $WORK/nginx.log;
events { worker_connections 64; }
http {
  access_log off;
  sendfile on;
  client_body_temp_path $WORK/nginx-body;
  proxy_temp_path $WORK/nginx-proxy;
  fastcgi_temp_path $WORK/nginx-fastcgi;
  uwsgi_temp_path $WORK/nginx-uwsgi;
  scgi_temp_path $WORK/nginx-scgi;
  server {
    listen $2; listen [::]:$2; root $WORK/www;
    location /port { return 200 "\$server_port\\n"; }
    location /who { return 200 "\$server_addr was asked by \$remote_addr\\n"; }
  }
}
END
  # Not through quietly_on: $! has to be the program, not a shell around it.
  ip netns exec "$NAME-$1" nginx -e "$WORK/nginx.log" -c "$WORK/nginx-$1-$2.conf" -g 'daemon off;' \
    >/dev/null 2>&1 5>&- 9>&- &
  echo "$!"
}

wait_listening() {
  local tries
  for ((tries = 0; tries < 400; tries++)); do
    [ -z "$(quietly_on "$1" ss -Hltn "sport = :$2")" ] || return 0
    sleep 0.05
  done
  give_up "nothing listens on port $2 in the $1 host"
}

# start_sluice [LINE...] : more lines for its configuration.
start_sluice() {
  { printf 'interfaces:\n  - name: left\n  - name: right\n'; printf '%s\n' "$@"; } |
    sed '/^$/d' > "$WORK/sluice.yaml"
  indent < "$WORK/sluice.yaml"
  printf '  %srouter$ sluice run --config sluice.yaml%s\n' "$DIM" "$PLAIN"
  ip netns exec "$NAME-router" "$BUILD/sluice" run --config "$WORK/sluice.yaml" \
    --control "$CONTROL" >"$WORK/sluice.log" 2>&1 5>&- 9>&- &
  SLUICE_PID=$!
  on router "$BUILD/sluice" --control "$CONTROL" wait-ready --timeout 60 ||
    give_up "Sluice does not become ready"
}

# ask WORDS... : of the running Sluice.
ask() { show_on router "$BUILD/sluice" --control "$CONTROL" "$@"; }
quietly_ask() { quietly_on router "$BUILD/sluice" --control "$CONTROL" "$@"; }

scrape() {
  quietly_on router curl -sS --max-time 5 http://127.0.0.1:9470/metrics > "$1"
}

# outcomes SCRAPE : per interface: received forwarded local punted dropped held merged.
outcomes() {
  awk '
    /^sluice_(received|forwarded|local|punted|dropped|merged)_packets_total\{|^sluice_held_packets\{/ {
      what = $1; sub(/^sluice_/, "", what); sub(/_packets.*/, "", what)
      name = $1; sub(/.*[{,]interface="/, "", name); sub(/".*/, "", name)
      n[name, what] += $NF; seen[name] = 1
    }
    END {
      for (name in seen)
        printf "%s %d %d %d %d %d %d %d\n", name, n[name, "received"], n[name, "forwarded"],
               n[name, "local"], n[name, "punted"], n[name, "dropped"], n[name, "held"],
               n[name, "merged"]
    }' "$1" | sort
}

# The law, from one scrape; packets may be under way while it is taken, so a moment of rest is
# waited for.
conservation_holds() {
  local tries
  for ((tries = 0; tries < 20; tries++)); do
    scrape "$WORK/after"
    if outcomes "$WORK/after" | awk '{ if ($2 != $3 + $4 + $5 + $6 + $7 + $8 || $2 == 0) bad = 1 }
                                     END { exit bad || NR != 2 }'; then
      break
    fi
    sleep 0.1
  done
  grep -E '^sluice_(received|forwarded|dropped)_packets_total' "$WORK/after" | grep -v ' 0$' |
    head -n 8 | indent
  outcomes "$WORK/after" | awk '
    { sum = $3 + $4 + $5 + $6 + $7 + $8; ok = sum == $2 && $2 > 0; bad += !ok
      printf "    %-6s %d received = %d forwarded + %d local + %d punted + %d dropped + %d held + %d merged%s",
             $1, $2, $3, $4, $5, $6, $7, $8, ok ? "\n" : "  WRONG: " sum "\n" }
    END { exit bad || NR != 2 }'
}

# carried SCRAPE [INTERFACE] : packets by XDP, workers, the kernel, that came by the interface or any.
carried() {
  awk -v only="${2:-}" '
    /^sluice_tier_packets_total\{/ && (only == "" || index($1, "interface=\"" only "\"")) {
      tier = $1; sub(/.*tier="/, "", tier); sub(/".*/, "", tier); n[tier] += $NF
    }
    END { printf "%d %d %d\n", n["xdp"], n["worker"], n["kernel"] }' "$1"
}

# The flow tier has taken part. How much depends on how soon a download ends.
tiers_took_part() {
  scrape "$WORK/tiers"
  grep '^sluice_tier_packets_total' "$WORK/tiers" | indent
  carried "$WORK/tiers" | awk '
    { all = $1 + $2 + $3
      if (all) printf "    XDP carried %.1f%% of the packets by itself, workers %.1f%%\n",
                      100 * $1 / all, 100 * $2 / all
      exit $1 == 0 }'
}

# What came in from the right and was forwarded must cover the two downloads, at TCP's 1448 bytes a
# packet: they cannot have gone another way.
show_movement() {
  { echo "interface received forwarded local punted dropped held"
    join <(outcomes "$WORK/before") <(outcomes "$WORK/after") |
      awk '{ print $1, "+" $9 - $2, "+" $10 - $3, "+" $11 - $4, "+" $12 - $5, "+" $13 - $6, $14 }'
  } | column -t | indent
  join <(outcomes "$WORK/before") <(outcomes "$WORK/after") |
    awk -v wanted="$(((FILE_MIB << 21) / 1448))" '
      $1 == "right" && $10 - $3 >= wanted { fine = 1 } END { exit !fine }'
}

# download WHO FAMILY ADDRESS : the file, whole; its speed in Mbit/s goes to SPEED.
download() {
  local rate sum
  rm -f "$WORK/got"
  on left curl -sS --max-time 60 -o "$WORK/got" -w '%{speed_download}\n' "http://$3:8080/file" \
    > "$WORK/out" || return 1
  rate=$(cat "$WORK/out")
  SPEED[$1,download,$2]=$(awk -v rate="$rate" 'BEGIN { printf "%d", rate * 8 / 1e6 }')
  sum=$(sha256sum < "$WORK/got")
  printf '    %s MiB at %s Mbit/s, sha256 %.16s...\n' \
    "$FILE_MIB" "${SPEED[$1,download,$2]}" "$sum"
  [ "$sum" = "$FILE_SUM" ]
}

# bulk WHO FAMILY ADDRESS : a second of TCP; Mbit/s received goes to SPEED.
bulk() {
  on left timeout 20 iperf3 -c "$3" -t 1 -f m > "$WORK/out" 2>&1 ||
    { indent < "$WORK/out"; return 1; }
  grep -E 'sender|receiver' "$WORK/out" | indent
  SPEED[$1,iperf3,$2]=$(awk '/receiver/ { printf "%d", $7 }' "$WORK/out")
  [ "${SPEED[$1,iperf3,$2]}" -gt 0 ]
}

# both_families WHO WORDS : downloads and iperf3.
both_families() {
  check "download over IPv4 $2" download "$1" v4 "$RIGHT4"
  check "download over IPv6 $2" download "$1" v6 "[$RIGHT6]"
  check "iperf3 over IPv4 $2" bulk "$1" v4 "$RIGHT4"
  check "iperf3 over IPv6 $2" bulk "$1" v6 "$RIGHT6"
}

# --- The firewall and NAT: left is the LAN, right the world ---

write_rules() {
  sed "s|^define LAN = .*|define LAN = \"left\"|; s|^define WAN = .*|define WAN = \"right\"|
       s|^define LAN4 = .*|define LAN4 = 10.77.1.0/24|; s|^define SERVER = .*|define SERVER = $LEFT4|
       s|^define LAN6 = .*|define LAN6 = fd77:0:0:1::/64|" config/home-router.nft > "$WORK/rules.nft"
}

load_rules() {
  local tries
  on router nft -f "$WORK/rules.nft" || return 1
  for ((tries = 0; tries < 200; tries++)); do
    quietly_ask show status | grep -E '^firewall .* [1-9][0-9]* in workers' | indent && return 0
    sleep 0.05
  done
  return 1
}

# who HOST URL ANSWER : the answer that the web server there must give.
who() {
  on "$1" curl -sS --max-time 5 "$2" > "$WORK/out" && indent < "$WORK/out" &&
    [ "$(cat "$WORK/out")" = "$3" ]
}

# The rules drop it, so nothing comes back; the reason is counted.
refused() {
  ! on right curl -sS --max-time 1 "http://$LEFT4/who" > "$WORK/out" 2>&1 || return 1
  indent < "$WORK/out"
  quietly_ask show drops | tee "$WORK/out" | indent
  grep -q firewall_rule "$WORK/out"
}
explained() {
  ask explain --in right ip saddr "$RIGHT4" ip daddr "$LEFT4" tcp dport 80 tcp flags syn \
    > "$WORK/out" && sed -n '/forward/,$p' "$WORK/out" &&
    grep -q 'dropped: firewall_rule' "$WORK/out"
}
translated() {
  ask show flows --sort bytes > "$WORK/out" && head -n 6 "$WORK/out" &&
    grep -q masquerade "$WORK/out"
}
rules_counted() {
  on router "$BUILD/sluice" --control "$CONTROL" show rules > "$WORK/out" || return 1
  grep -E 'counter packets [1-9]' "$WORK/out" | sed 's/[[:space:]]\{2,\}/  /' | indent
  tail -n 1 "$WORK/out" | indent
  [ "$(grep -cE 'counter packets [1-9].*(masquerade|dnat|drop)' "$WORK/out")" -eq 3 ]
}

firewall_and_nat() {
  check "a home router's rules, loaded by nft, are in force" load_rules
  check "the LAN is seen by one address" \
    who left "http://$RIGHT4:8080/who" "$RIGHT4 was asked by $OUTSIDE4"
  check "the forwarded port is reached from outside" \
    who right "http://$OUTSIDE4:8080/who" "$LEFT4 was asked by $RIGHT4"
  check "an unsolicited connection is refused" refused
  check "explain names the rule" explained
  through_nat sluice "through Sluice"
  check "show flows" translated
  check "show rules counts" rules_counted
}
through_nat() {
  check "download through NAT $2" download "$1" nat "$RIGHT4"
  check "iperf3 through NAT $2" bulk "$1" nat "$RIGHT4"
}

# --- The end of Sluice ---

# A download through NAT that takes longer than Sluice has left to run.
long_download() {
  rm -f "$WORK/long"
  on left curl -sS --max-time 30 --limit-rate 24M -o "$WORK/long" "http://$RIGHT4:8080/file"
}
long_download_lived() {
  wait "$LONG_PID" || return 1
  printf '    %s MiB, sha256 %.16s...\n' "$FILE_MIB" "$(sha256sum < "$WORK/long")"
  [ "$(sha256sum < "$WORK/long")" = "$FILE_SUM" ]
}

# A ping every 20 ms while Sluice ends: what the handover to the kernel costs.
stop_sluice() {
  local status=0 ping_pid got
  long_download &
  LONG_PID=$!
  ip netns exec "$NAME-left" ping -q -i 0.02 -c 100 -W 1 "$RIGHT4" > "$WORK/ping" 2>&1 5>&- 9>&- &
  ping_pid=$!
  sleep 0.7
  got=$(stat -c %s "$WORK/long")
  echo "  kill -TERM $SLUICE_PID   (while left pings right every 20 ms, and has $((got >> 20)) MiB)"
  kill -TERM "$SLUICE_PID"
  wait "$SLUICE_PID" || status=$?
  SLUICE_PID=
  verdict_on "Sluice ends cleanly on SIGTERM" "$status"
  wait "$ping_pid" || true
  grep -E 'transmitted' "$WORK/ping" | indent
  check "the download through NAT went on without Sluice" long_download_lived
  check "nothing is left attached" no_xdp_left
}
no_xdp_left() {
  ! ip -n "$NAME-router" -d link show | grep -E 'prog/xdp|xdp(generic|offload)?/id'
}

restore_offloads() {
  local host
  for host in left right; do quietly_on "$host" ethtool -K eth0 tso on gso on; done
}

print_table() {
  local what family
  printf '\n    %-18s %12s %12s %18s\n' 'Mbit/s' 'Sluice' 'kernel' 'kernel, 1500-byte'
  for what in download iperf3; do
    for family in v4 v6 nat; do
      printf '    %-18s %12s %12s %18s\n' "$what $(sed 's/^v/IPv/; s/nat/IPv4 NAT/' <<<"$family")" \
        "${SPEED[sluice,$what,$family]:--}" "${SPEED[kernel,$what,$family]:--}" \
        "${SPEED[wire,$what,$family]:--}"
    done
  done
  cat <<'END'

    In the second column the hosts hand the kernel packets of up to 64 KiB in one piece, which only
    virtual links can do. In the third they send frames of 1500 bytes, as on a wire and as Sluice
    gets them. Both hosts, the router and the programs share this machine's cores here; for figures
    that compare routers see benchmarks/.
END
}

# --- The demo -------------------------------------------------------------------------------------

sluice_require_root
start_cleanly
echo "${BOLD}Sluice: two hosts with a router between them${PLAIN}"

title "Packages and build"
build
STARTED=$SECONDS

title "Two hosts and a router, each a network namespace"
make_network
FILE_SUM=$(sha256sum < "$WORK/www/file")

title "Sluice takes over the forwarding"
start_sluice
scrape "$WORK/before"

title "Through Sluice"
check "ping over IPv4 through Sluice" show_on left ping -q -c 5 -i 0.2 -W 5 "$RIGHT4"
check "ping over IPv6 through Sluice" show_on left ping -q -c 5 -i 0.2 -W 5 "$RIGHT6"
both_families sluice "through Sluice"
check "XDP carries what workers have decided" tiers_took_part
check "ping back" show_on right ping -q -c 2 -i 0.2 -W 5 "$LEFT4"

title "What Sluice says about it"
check "show status" show_on router "$BUILD/sluice" --control "$CONTROL" show status
check "show interfaces" show_on router "$BUILD/sluice" --control "$CONTROL" show interfaces
on router curl -s http://127.0.0.1:9470/metrics >/dev/null || true
check "the conservation law holds on every interface" conservation_holds
check "the counters moved with the traffic" show_movement

title "Small packets through Sluice"
write_packet_programs
small_packets sluice plain 10

title "A home router's firewall and NAT"
write_rules
firewall_and_nat
small_packets sluice nat 50
check "the conservation law holds still" conservation_holds

title "Sluice stops, the kernel carries on"
stop_sluice
through_nat kernel "through the kernel"
small_packets kernel nat 10
quietly_on router nft flush ruleset
small_packets kernel plain 10
both_families kernel "through the kernel"

title "The kernel once more, with frames as on a wire"
for host in left right; do
  on "$host" ethtool -K eth0 tso off gso off >/dev/null
  quietly_on router ethtool -K "$host" gro off >/dev/null
done
both_families wire "through the kernel, 1500-byte frames"
on router nft -f "$WORK/rules.nft"
through_nat wire "through the kernel, 1500-byte frames"
restore_offloads

title "Sluice without its flow tier"
start_sluice 'flow_offload: off'
small_packets workers nat 10
quietly_on router nft flush ruleset
small_packets workers plain 10
stop_process "$SLUICE_PID"
SLUICE_PID=

title "A load balancer"
balance

title "Speed, side by side"
print_table
print_costs
echo "    $((SECONDS - STARTED)) seconds since the build."

if [ "$KEEP" = yes ] && [ "${#FAILED[@]}" -eq 0 ]; then
  title "Sluice again"
  on router nft -f "$WORK/rules.nft"
  start_sluice
fi
[ "${#FAILED[@]}" -eq 0 ] || exit 1
