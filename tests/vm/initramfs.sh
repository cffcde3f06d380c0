# shellcheck shell=bash
# The guest's whole file system for tests/vm/run.sh: busybox, the programs of the test with their
# libraries, the kernel modules they need in loading order, and guest/. Sourced by
# tests/vm/run.sh, which sets `build` and `kernel_only`.

# Programs beside busybox and Sluice: busybox has no network namespaces, and its shell would run its
# own ip and ping.
GUEST_PROGRAMS=(bash ip nft ping iperf3 curl ethtool taskset)
# What Sluice needs of the kernel: its TAP devices and the tc hook; and what a masquerade needs.
GUEST_MODULES=(tun sch_ingress cls_bpf act_gact virtio_pci nft_chain_nat nft_masq nf_conntrack_netlink)

# copy_program ROOT FILE... : each with its shared libraries, at the same paths.
copy_program() {
  local root=$1 file library
  shift
  for file in "$@"; do
    install -D -m 755 "$file" "$root/bin/$(basename "$file")"
    # Lines such as "libc.so.6 => /lib/... (0x...)" and "/lib64/ld-linux-x86-64.so.2 (0x...)".
    for library in $(ldd "$file" | grep -o '/[^ ]*'); do
      [ -e "$root$library" ] || install -D -m 755 "$library" "$root$library"
    done
  done
}

# copy_modules ROOT KERNEL-ROOT VERSION MODULE... : with what they depend on, unpacked; their order
# goes to ROOT/modules.order.
copy_modules() {
  local root=$1 kernel_root=$2 version=$3 module file name
  shift 3
  mkdir -p "$root/modules"
  for module in "$@"; do
    # "insmod PATH" or "builtin NAME" lines, dependencies first.
    modprobe -d "$kernel_root" -S "$version" --ignore-install --show-depends "$module"
  done | awk '$1 == "insmod" && !seen[$2]++ {print $2}' | while read -r file; do
    name=$(basename "$file")
    case "$name" in
      *.xz) name=${name%.xz} && xz -dc "$file" > "$root/modules/$name" ;;
      *.zst) name=${name%.zst} && zstd -qdc "$file" > "$root/modules/$name" ;;
      *) cp "$file" "$root/modules/$name" ;;
    esac
    echo "$name"
  done > "$root/modules.order"
}

# make_initramfs FILE VM-DIRECTORY FLAVOUR VERSION NIC-MODULE
make_initramfs() {
  local root=$2/root program
  rm -rf "$root"
  mkdir -p "$root"/{bin,dev,etc,proc,run,sys,tmp}
  install -m 755 "$(command -v busybox)" "$root/bin/busybox"
  for program in "${GUEST_PROGRAMS[@]}"; do
    copy_program "$root" "$(command -v "$program")"
  done
  # shellcheck disable=SC2154
  if [ "$kernel_only" = no ]; then
    copy_program "$root" "$build/sluice"
    strip "$root/bin/sluice"  # debug information would be most of what the guest loads
  fi
  copy_modules "$root" "$2/kernel-$3" "$4" "${GUEST_MODULES[@]}" "$5"
  install -m 755 tests/vm/guest/init "$root/init"
  install -m 755 tests/vm/guest/test.sh "$root/bin/vm-test"
  echo 'root:x:0:0:root:/:/bin/sh' > "$root/etc/passwd"
  (cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) > "$1"
}
