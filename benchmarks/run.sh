#!/usr/bin/env bash
# Measures forwarding: the kernel, a bare AF_XDP forwarder and Sluice, each on one core.
#   sudo benchmarks/run.sh [--quick] [--devices kernel,bare,sluice] [--cases REGEX] [--profile]
#   sudo benchmarks/run.sh --firewall rules and NAT: masquerade, many rules, new flows, early drop
#   sudo benchmarks/run.sh --offload  the flow tier: beside bare XDP, real clients, round trips
#   sudo benchmarks/run.sh --services proxies: beside haproxy and dnsdist
#   sudo benchmarks/run.sh --memory   code without I/O: packets, flows, rules, connections
#   sudo benchmarks/run.sh --study    what each choice of an AF_XDP program is worth
# See benchmarks/README.md; --help lists the rest. SLUICE_BUILD names another build directory.
set -euo pipefail
cd "$(dirname "$0")/.."
. deploy/packages.sh
sluice_require_root
sluice_install_packages build bench
build=$(realpath -m "${SLUICE_BUILD:-build}")
cmake -S . -B "$build" -G Ninja > /dev/null
targets=(sluice rig_generator rig_sink bare_forwarder rig_drop fib_forwarder rtt_probe answerer
         http_load)
if [[ " $* " == *" --memory "* ]]; then
  targets=(fib_bench pipeline_bench flow_bench filter_bench firewall_bench promotion_bench
           transport_bench services_bench)
fi
cmake --build "$build" --target "${targets[@]}"
# Debian's own python3: the machine's default may be another. The driver cleans up on any signal.
exec /usr/bin/python3 benchmarks/driver/main.py --build "$build" "$@"
