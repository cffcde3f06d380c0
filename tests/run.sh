#!/usr/bin/env bash
# Installs what is needed, builds everything, runs every test. Needs root (network namespaces, XDP).
#
#   sudo tests/run.sh                 everything
#   sudo tests/run.sh -R unit_wire    arguments go to ctest: by name (-R), by label (-L e2e), -V ...
#
# Labels: unit, sim, lint, differential, e2e, slow. The sanitizer builds and the short fuzzing run
# are tests like the others (sanitize_address, sanitize_thread, fuzz_short), so that the last thing
# printed is ctest's summary of it all, and its exit status is this script's.
set -euo pipefail
exec </dev/null
cd "$(dirname "$0")/.."

case "${1:-}" in
  -h | --help)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
# shellcheck source=deploy/packages.sh
. deploy/packages.sh
sluice_require_root
export HOME="${HOME:-/root}"  # ccache keeps its files there, and some CI runners set none

sluice_install_packages build demo test
cmake -S . -B build -G Ninja -DSLUICE_TESTS=ON -DSLUICE_BENCHMARKS=ON
cmake --build build --parallel "$(nproc)"
exec ctest --test-dir build --output-on-failure --no-tests=error --parallel "$(nproc)" "$@"
