#!/usr/bin/env bash
# Builds the libFuzzer targets with clang and runs each for a few seconds, after its saved corpus.
# ctest runs it as fuzz_short. To look for new bugs, give it a directory that keeps what it finds:
#
#   tests/fuzz.sh BUILD_DIRECTORY [--seconds N] [--keep DIRECTORY] [TARGET...]
#
# The saved corpus in tests/fuzz/corpus/NAME (for the program NAME_fuzz) is only read. Inputs that
# fail are written to BUILD_DIRECTORY/NAME_fuzz-crash-*.
set -euo pipefail
exec </dev/null

[ "$#" -ge 1 ] || { sed -n '5s/^# *//p' "$0" >&2; exit 2; }
source_dir=$(cd "$(dirname "$0")/.." && pwd)
build_dir=$1
shift
seconds=5
keep=
targets=()
while [ "$#" -gt 0 ]; do
  case "$1" in
    --seconds) seconds=$2; shift 2 ;;
    --keep) keep=$2; shift 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done

# Debug, so that assertions are in; optimised a little, so that a second is worth more.
cmake -S "$source_dir" -B "$build_dir" -G Ninja -DCMAKE_C_COMPILER=clang \
  -DCMAKE_CXX_COMPILER=clang++ -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g1" \
  -DSLUICE_FUZZERS=ON -DSLUICE_TESTS=ON -DSLUICE_BENCHMARKS=OFF
cmake --build "$build_dir" --parallel "$(nproc)" --target fuzzers

if [ "${#targets[@]}" -eq 0 ]; then
  mapfile -t targets < <(find "$build_dir" -maxdepth 1 -type f -name '*_fuzz' -printf '%f\n' | sort)
fi
[ "${#targets[@]}" -gt 0 ] || { echo "fuzz.sh: no fuzz targets in $build_dir" >&2; exit 1; }

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=()
for target in "${targets[@]}"; do
  echo
  echo "== $target, $seconds s"
  found=${keep:-$scratch}/$target
  mkdir -p "$found"
  corpus=("$found")  # new inputs go to the first directory
  if [ -d "$source_dir/tests/fuzz/corpus/${target%_fuzz}" ]; then
    corpus+=("$source_dir/tests/fuzz/corpus/${target%_fuzz}")
  fi
  "$build_dir/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
    -print_final_stats=1 -verbosity=1 -artifact_prefix="$build_dir/$target-" "${corpus[@]}" \
    >"$scratch/log" 2>&1 && status=0 || status=$?
  if [ "$status" -ne 0 ]; then
    failed+=("$target")
    cat "$scratch/log"
  else
    grep -E '^stat::(number_of_executed_units|average_exec_per_sec)|INITED|DONE' "$scratch/log" ||
      tail -3 "$scratch/log"
  fi
done
[ "${#failed[@]}" -eq 0 ] || { echo "fuzz.sh: FAILED: ${failed[*]}" >&2; exit 1; }
