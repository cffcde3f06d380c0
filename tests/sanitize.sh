#!/usr/bin/env bash
# Builds the unit and simulation tests with a sanitizer in a build directory of its own, and runs
# them. ctest runs it as sanitize_address and sanitize_thread; by hand:
#
#   tests/sanitize.sh address|address-all|thread|thread-all BUILD_DIRECTORY [CTEST_ARGUMENT...]
#
# `address` is for what reads the bytes of others or handles frames (the label memory), `thread` for
# what several threads run or share (the label threads); with -all for everything.
set -euo pipefail
exec </dev/null

case "${1:-}" in
  address) sanitizers=address,undefined target=memory_tests labels='^memory$' ;;
  address-all) sanitizers=address,undefined target=unit_and_sim_tests labels='^(unit|sim)$' ;;
  thread) sanitizers=thread target=threaded_tests labels='^threads$' ;;
  thread-all) sanitizers=thread target=unit_and_sim_tests labels='^(unit|sim)$' ;;
  *) sed -n '5s/^# *//p' "$0" >&2; exit 2 ;;
esac
source_dir=$(cd "$(dirname "$0")/.." && pwd)
build_dir=${2:?a build directory is wanted}
shift 2

# Debug, so that assertions are in; optimised a little, so that the tests stay quick.
cmake -S "$source_dir" -B "$build_dir" -G Ninja -DSLUICE_SANITIZE="$sanitizers" \
  -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1" \
  -DSLUICE_TESTS=ON -DSLUICE_BENCHMARKS=OFF
cmake --build "$build_dir" --parallel "$(nproc)" --target "$target"

# GCC 12's thread sanitizer cannot place its shadow memory when the kernel randomises addresses by
# 32 bits, as newer kernels do. Where a container forbids to turn that off, it is tried as it is.
run=()
if setarch -R true 2>/dev/null; then
  run=(setarch -R)
fi
# A single-threaded simulation has no races to find; a few of its random runs show that it builds. In
# CI's time the address sanitizer sees some, and address-all the rest.
case "$target,$sanitizers" in
  *,thread) export SLUICE_SIM_SEEDS="${SLUICE_SIM_SEEDS:-4}" ;;
  memory_tests,*) export SLUICE_SIM_SEEDS="${SLUICE_SIM_SEEDS:-8}" ;;
esac
export ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="print_stacktrace=1:${UBSAN_OPTIONS:-}"
exec "${run[@]}" ctest --test-dir "$build_dir" --output-on-failure --no-tests=error \
  --parallel "$(nproc)" -L "$labels" "$@"
