# What a small packet costs in XDP, in Sluice's workers and in the kernel: CPU time per packet, which
# other load on the machine changes little. Sourced by demo.sh, whose names it uses.
#
# left sends UDP packets of 64 bytes to right, far fewer than anybody could forward. Where the device
# hands packets over by a kernel thread of its own (threaded NAPI), all that the router does with them
# is done by that thread and by Sluice, and the kernel tells how long they ran. right throws the
# packets away as they arrive, after it has answered a few.

write_packet_programs() {
  cat > "$WORK/send.pl" <<'END'
use Socket;
my ($to, $port, $tries, $bursts) = @ARGV;
socket(my $s, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
bind($s, sockaddr_in(4007, INADDR_ANY)) or die "bind: $!";  # the same connection each time
connect($s, sockaddr_in($port, inet_aton($to))) or die "connect: $!";
# A connection first: packets that are answered.
for (1 .. $tries) { send($s, "?", 0); select(undef, undef, undef, 0.05); }
setsockopt($s, 17, 103, pack("i", 22)) or die "UDP_SEGMENT: $!";  # one call, many packets
my $many = "x" x (22 * 60);
my $end = time + 4;
for (1 .. $bursts) {
  send($s, $many, 0) for 1, 2;
  last if time > $end;
  select(undef, undef, undef, 0.0004);
}
END
  cat > "$WORK/answer.pl" <<'END'
use Socket;
socket(my $s, PF_INET, SOCK_DGRAM, 0) or die "socket: $!";
bind($s, sockaddr_in($ARGV[0], INADDR_ANY)) or die "bind: $!";
while (defined(my $from = recv($s, my $got, 100, 0))) { send($s, $got, 0, $from); }
END
}

napi_threads() { ps -eo pid=,comm= | awk '$2 ~ /^napi\/(left|right)-/ { print $1 }'; }
# Nanoseconds that the forwarding threads have run: those that are not in the list $1.
run_time() {
  local pid
  { for pid in $(napi_threads); do
      [[ " $1 " == *" $pid "* ]] || cat "/proc/$pid/schedstat"
    done
    [ -z "$SLUICE_PID" ] || cat "/proc/$SLUICE_PID"/task/*/schedstat
  } 2>/dev/null | awk '{ sum += $1 } END { printf "%d\n", sum }'
}
threaded() {
  local place
  for place in router/left router/right left/eth0 right/eth0; do
    quietly_on "${place%/*}" sh -c "echo $1 > /sys/class/net/${place#*/}/threaded" 2>/dev/null ||
      return 1
  done
}
# Packets that the router has sent to the right, or would have, had there been room.
sent_by_router() {
  if [ -n "$SLUICE_PID" ]; then
    sleep 0.3  # what XDP has carried is counted soon after
    scrape "$1"
    awk '/^sluice_forwarded_packets_total\{interface="left"/ { n += $NF } END { printf "%d\n", n }' "$1"
  else
    quietly_on router sh -c \
      'cat /sys/class/net/right/statistics/tx_packets /sys/class/net/right/statistics/tx_dropped' |
      awk '{ n += $1 } END { printf "%d\n", n }'
  fi
}

# small_packets WHO WHAT TRIES : nanoseconds per packet go to COST, XDP's share of them to SHARE. Nothing
# fails here: where this cannot be measured (a container without the kernel's threads), it is said.
small_packets() {
  local before from sent pid
  before=$(napi_threads | tr '\n' ' ')
  # Frames as on a wire, one by one; and NAPI for the kernel too, as network cards have it.
  quietly_on left ethtool -K eth0 tso off gso off tx-udp-segmentation off >/dev/null 2>&1 || true
  [ -n "$SLUICE_PID" ] || for host in left right; do quietly_on router ethtool -K "$host" gro on; done
  quietly_on right nft 'table netdev demo { chain arrive {
      type filter hook ingress device eth0 priority 0; udp dport 7 udp length 30 drop; }; }'
  ip netns exec "$NAME-right" perl "$WORK/answer.pl" 7 >/dev/null 2>&1 5>&- 9>&- &
  pid=$!
  if threaded 1 && quietly_on left perl "$WORK/send.pl" "$RIGHT4" 7 "$3" 100; then
    sent=$(sent_by_router "$WORK/cost-before")
    from=$(run_time "$before")
    quietly_on left perl "$WORK/send.pl" "$RIGHT4" 7 1 1500 || true
    COST[$1,$2]=$(($(run_time "$before") - from))
    sent=$(($(sent_by_router "$WORK/cost-after") - sent))
    if [ "$sent" -gt 10000 ] && [ "${COST[$1,$2]}" -gt 0 ]; then
      COST[$1,$2]=$((COST[$1,$2] / sent))
      [ -z "$SLUICE_PID" ] || SHARE[$1,$2]=$(
        paste -d ' ' <(carried "$WORK/cost-before" left) <(carried "$WORK/cost-after" left) |
          awk '{ all = $4 + $5 + $6 - $1 - $2 - $3; printf "%.1f%%", all ? 100 * ($4 - $1) / all : 0 }')
      printf '    %s packets, %s ns of CPU time each%s\n' "$sent" "${COST[$1,$2]}" \
        "${SHARE[$1,$2]:+, ${SHARE[$1,$2]} of them carried by XDP}"
    else
      unset "COST[$1,$2]"
    fi
  fi
  [ -n "${COST[$1,$2]:-}" ] || echo "    cannot be measured on this machine"
  stop_process "$pid"
  quietly_on right nft delete table netdev demo
  threaded 0 || true
  [ -n "$SLUICE_PID" ] || for host in left right; do quietly_on router ethtool -K "$host" gro off; done
  quietly_on left ethtool -K eth0 tso on gso on tx-udp-segmentation on >/dev/null 2>&1 || true
}

print_costs() {
  local what label
  printf '\n    %-34s %10s %10s %10s %14s\n' 'ns of CPU time per 64-byte packet' \
    'XDP' 'workers' 'kernel' 'XDP to kernel'
  for what in plain nat; do
    [ "$what" = plain ] && label=forwarding || label="the home router's rules and NAT"
    printf '    %-34s %10s %10s %10s %14s\n' "$label" "${COST[sluice,$what]:--}" \
      "${COST[workers,$what]:--}" "${COST[kernel,$what]:--}" \
      "$(awk -v a="${COST[kernel,$what]:-0}" -v b="${COST[sluice,$what]:-0}" \
           'BEGIN { if (a && b) printf "%.1f x", a / b; else printf "-" }')"
  done
  printf '    (XDP carried %s and %s of the packets in its column)\n' "${SHARE[sluice,plain]:--}" \
    "${SHARE[sluice,nat]:--}"
}
