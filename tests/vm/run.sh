#!/usr/bin/env bash
# Sluice on other kernels and network cards: boots Debian 12's kernels in QEMU, without KVM, and
# sends real traffic through a Sluice router inside.
#
#   sudo tests/vm/run.sh [--list] [--keep] [--kernel-only] [CASE...]
#
# The guest has four network cards: a left host, the router's two and a right host, each in its own
# network namespace; QEMU joins left with router and router with right by hubs, so that every frame
# crosses emulated cards. Kernels are taken from Debian's packages, unpacked below build/vm and not
# installed. Prints a line per check, the guest's result lines and a Markdown table at the end.
# Exit status 0 means that every case passed. On demand only: emulation makes it slow (1 to 3
# minutes per case). --keep leaves each guest's initramfs in build/vm; --kernel-only leaves Sluice
# out, to see whether the guest itself works.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
. deploy/packages.sh
. tests/vm/kernels.sh
. tests/vm/initramfs.sh

build=$(realpath -m "${SLUICE_BUILD:-build}")
vm=$build/vm
# NAME KERNEL-FLAVOUR QEMU-DEVICE MODULE EXPECTED-MODE
cases=(
  "6.1-virtio    6.1  virtio-net-pci virtio_net native"
  "6.12-virtio   6.12 virtio-net-pci virtio_net native"
  "6.1-e1000e    6.1  e1000e         e1000e     generic"
  "6.12-e1000e   6.12 e1000e         e1000e     generic"
  "6.12-vmxnet3  6.12 vmxnet3        vmxnet3    native"
)
boot_seconds=600
qemu_pid=
keep=no kernel_only=no

usage() { sed -n '2,15s/^# \{0,1\}//p' "$0"; }

cleanup() {
  if [ -n "$qemu_pid" ] && kill -0 "$qemu_pid" 2> /dev/null; then
    kill "$qemu_pid"
    wait "$qemu_pid" || true
  fi
  if [ "$keep" = no ]; then
    rm -rf "$vm/root" "$vm"/initramfs-*.cpio.gz
  fi
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP

# start_guest NAME DEVICE KERNEL INITRAMFS WORD... : the console goes to $vm/NAME.log, what QEMU
# says (hubs without a way to the host, for one) to $vm/NAME.qemu.
start_guest() {
  local nics=() index
  for index in 0 1 2 3; do
    nics+=(-netdev "hubport,id=n$index,hubid=$((index / 2))"
      -device "$2,netdev=n$index,mac=02:00:00:00:00:0$index,romfile=")
  done
  qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max -smp 2 -m 2048 \
    -nodefaults -no-user-config -display none -no-reboot -serial "file:$vm/$1.log" \
    -kernel "$3" -initrd "$4" -append "${*:5}" "${nics[@]}" < /dev/null 2> "$vm/$1.qemu" &
  qemu_pid=$!
}

# run_case NAME FLAVOUR DEVICE MODULE MODE : sets `result` to the table's row.
run_case() {
  local name=$1 flavour=$2 device=$3 module=$4 mode=$5 version log=$vm/$1.log status=0
  kernel_fetch "$flavour" "$vm"
  version=$(kernel_version "$flavour" "$vm")
  echo "== $name: kernel $version, $device"
  make_initramfs "$vm/initramfs-$name.cpio.gz" "$vm" "$flavour" "$version" "$module"
  : > "$log"
  start_guest "$name" "$device" "$(kernel_image "$flavour" "$vm")" "$vm/initramfs-$name.cpio.gz" \
    "console=ttyS0 quiet panic=-1 oops=panic vm_nic=$module vm_mode=$mode" \
    "vm_kernel_only=$kernel_only"
  timeout "$boot_seconds" tail --pid="$qemu_pid" -n +1 -f "$log" 2> /dev/null |
    tr -d '\r' | grep --line-buffered '^VM ' || true
  if kill -0 "$qemu_pid" 2> /dev/null; then
    echo "VM RESULT kernel=$version nic=$module fail reason=timeout" | tee -a "$log"
    kill "$qemu_pid"
  fi
  wait "$qemu_pid" || status=$?
  qemu_pid=
  [ "$status" -eq 0 ] || cat "$vm/$name.qemu"
  result=$(/usr/bin/python3 "$here/row.py" "$log" "$name" "$version" "$device" "$status")
}

names=()
for argument in "$@"; do
  case "$argument" in
    --list) printf '%s\n' "${cases[@]}" | awk '{print $1}'; exit 0 ;;
    --keep) keep=yes ;;
    --kernel-only) kernel_only=yes ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
    *) names+=("$argument") ;;
  esac
done

sluice_require_root
sluice_install_packages build vm
mkdir -p "$vm"
if [ "$kernel_only" = no ]; then
  cmake -S . -B "$build" -G Ninja > /dev/null
  cmake --build "$build" --target sluice
fi

rows=() failed=0 ran=0
for line in "${cases[@]}"; do
  read -ra words <<< "$line"
  if [ "${#names[@]}" -gt 0 ] && [[ " ${names[*]} " != *" ${words[0]} "* ]]; then
    continue
  fi
  run_case "${words[@]}"
  rows+=("$result")
  ran=$((ran + 1))
  [[ $result == *"| pass |"* ]] || failed=$((failed + 1))
done
if [ "$ran" -eq 0 ]; then
  echo "no such case; tests/vm/run.sh --list names them" >&2
  exit 2
fi
echo
echo "| kernel | card | XDP mode | AF_XDP | packets in XDP | result | what failed |"
echo "|---|---|---|---|---|---|---|"
printf '%s\n' "${rows[@]}"
echo
echo "$((ran - failed)) of $ran passed; consoles in $vm/*.log"
[ "$failed" -eq 0 ]
