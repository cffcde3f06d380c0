# shellcheck shell=bash
# A load balancer: left is the client, two web servers are on right. Part of demo.sh, which has the
# functions for talking, the addresses and WEB_PIDS.

# requests NUMBER : each by a connection of its own; the ports of the servers that answered.
requests() {
  on left curl -sS -f --http1.0 --max-time 20 --rate "$1/s" "http://$ROUTER4/port?[1-$1]" \
    > "$WORK/out" 2> "$WORK/lost" || { indent < "$WORK/lost"; return 1; }
  sort "$WORK/out" | uniq -c | awk '{ printf "    %d answers from the server on port %d\n", $1, $2 }'
  [ "$(wc -l < "$WORK/out")" -eq "$1" ]
}
servers_up() {
  [ "$(quietly_ask show services --json | grep -c '"health": "up"')" -eq "$1" ]
}
wait_servers_up() {
  local tries
  for ((tries = 0; tries < 200; tries++)); do
    ! servers_up "$1" || return 0
    sleep 0.05
  done
  return 1
}
take_turns() {
  requests 20 && [ "$(sort "$WORK/out" | uniq -c | awk '{ print $1 }' | xargs)" = "10 10" ]
}
# The server ends while requests come: those that meet a closed port are sent on to the other one.
loses_a_server() {
  local asking status=0
  requests 200 > "$WORK/asked" 5>&1 &
  asking=$!
  # In the middle of them, or after a request that was lost.
  while kill -0 "$asking" 2> /dev/null && [ "$(wc -l < "$WORK/out")" -lt 50 ]; do sleep 0.02; done
  kill -QUIT "${WEB_PIDS[1]}"
  WEB_PIDS[1]=
  wait "$asking" || status=$?
  cat "$WORK/asked"
  return "$status"
}
only_one_is_left() {
  wait_servers_up 1 || return 1
  ask show services
}
comes_back() {
  WEB_PIDS[1]=$(serve right 8082)
  wait_servers_up 2 && take_turns
}
balance() {
  WEB_PIDS=("$(serve right 8081)" "$(serve right 8082)")
  wait_listening right 8081
  wait_listening right 8082
  start_sluice services: "  - tcp_proxy: web" "    listen: $ROUTER4:80" \
    "    backends: [$RIGHT4:8081, $RIGHT4:8082]" \
    "    health_check: {http: /port, interval: 200ms, fall: 2}"
  wait_servers_up 2 || give_up "the web servers' health is not seen"
  check "a load balancer's servers take turns" take_turns
  check "a server goes, and not a request is lost" loses_a_server
  check "show services knows" only_one_is_left
  check "the server comes back" comes_back
  stop_process "$SLUICE_PID"
  SLUICE_PID=
}
