# shellcheck shell=bash
# Debian's kernels for tests/vm/run.sh: fetched with the machine's own package sources and unpacked
# below a directory, never installed. Sourced; needs bash.
#
# A flavour is a meta package's idea of "the" kernel: 6.1 is Debian 12's own, 6.12 the newer one
# that Debian 12 offers beside it. The full flavour, not the cloud one, which lacks e1000e.

declare -A KERNEL_META=([6.1]=linux-image-amd64 [6.12]=linux-image-6.12-amd64)

# kernel_package FLAVOUR : the package that holds the kernel itself.
kernel_package() {
  local package
  package=$(apt-cache depends --important "${KERNEL_META[$1]}" 2> /dev/null |
    awk '/Depends: linux-image-/ {print $2; exit}')
  if [ -z "$package" ]; then
    echo "no package ${KERNEL_META[$1]}: run apt-get update, with bookworm-security enabled" >&2
    return 1
  fi
  echo "$package"
}

# kernel_fetch FLAVOUR DIRECTORY : unpacks it to DIRECTORY/kernel-FLAVOUR, once per version.
kernel_fetch() {
  local package directory=$2/kernel-$1 version
  package=$(kernel_package "$1") || return
  if [ -e "$directory/$package" ]; then
    return 0
  fi
  rm -rf "$directory"
  mkdir -p "$directory/download"
  echo "fetching $package"
  # apt drops its privileges for a download, so the directory must be open to it.
  chmod 777 "$directory/download"
  (cd "$directory/download" && apt-get -q download "$package" > /dev/null)
  dpkg-deb -x "$directory/download/"*.deb "$directory"
  rm -rf "$directory/download"
  version=$(kernel_version "$1" "$2")
  depmod -b "$directory" -F "$directory/boot/System.map-$version" "$version"
  touch "$directory/$package"
}

kernel_version() { basename "$2/kernel-$1"/lib/modules/*; }
kernel_image() { echo "$2/kernel-$1/boot/vmlinuz-$(kernel_version "$1" "$2")"; }
