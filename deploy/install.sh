#!/usr/bin/env bash
# Builds Sluice and installs it, or takes it away again.
#
#   sudo deploy/install.sh [--prefix DIR] [--no-systemd] [--no-packages] [--build DIR]
#   sudo deploy/install.sh --uninstall [--prefix DIR]
#
# --prefix       where to; default /usr/local
# --no-systemd   without the units sluice.service and sluice@.service
# --no-packages  trust that everything needed to build is there (see deploy/packages.sh)
# --build        build directory; default build/ in the source directory
# --uninstall    stops and removes Sluice; the configuration in /etc/sluice stays
#
# The environment variable DESTDIR puts everything under another root, for packaging. Nothing is
# enabled or started: the first start is yours, once /etc/sluice/sluice.yaml names your interfaces.
# Running it again upgrades; a running Sluice goes on until it is restarted.
set -euo pipefail
exec </dev/null

cd "$(dirname "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

PREFIX=/usr/local
BUILD=build
DESTDIR=${DESTDIR:-}
UNINSTALL=no SYSTEMD=yes PACKAGES=yes
UNITS=(sluice.service sluice@.service)
UNIT_DIR=/etc/systemd/system

usage() {
  sed -n '4,5s/^#   //p' "$0" >&2
  exit 2
}

say() {
  printf '  %s\n' "$*"
}

# systemd is asked only where it runs, and where we install into it.
systemd_runs() {
  [ "$SYSTEMD" = yes ] && [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]
}

# put MODE SOURCE TARGET : a file, with its directories; TARGET without DESTDIR.
put() {
  install -D -m "$1" "$2" "$DESTDIR$3"
  say "$3"
}

build() {
  if [ "$PACKAGES" = yes ]; then
    sluice_install_packages build
  fi
  # A build directory keeps the options it was made with.
  [ -e "$BUILD/CMakeCache.txt" ] ||
    cmake -S . -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo
  grep -qE '^CMAKE_BUILD_TYPE:\w+=Rel' "$BUILD/CMakeCache.txt" ||
    say "Note: $BUILD is not an optimised build (CMAKE_BUILD_TYPE)"
  cmake --build "$BUILD" --parallel "$(nproc)" --target sluice
}

install_files() {
  local share=$PREFIX/share/sluice doc=$PREFIX/share/doc/sluice file
  put 755 "$BUILD/sluice" "$PREFIX/bin/sluice"
  for file in config/*.yaml config/*.nft; do
    put 644 "$file" "$share/config/${file##*/}"
  done
  for file in prometheus.yml alerts.yml; do
    put 644 "deploy/prometheus/$file" "$share/prometheus/$file"
  done
  put 644 deploy/grafana/sluice.json "$share/grafana/sluice.json"
  for file in README.md CHANGELOG.md LICENSE; do
    [ ! -e "$file" ] || put 644 "$file" "$doc/$file"
  done
  if [ -e "$DESTDIR/etc/sluice/sluice.yaml" ]; then
    say "/etc/sluice/sluice.yaml is there already and stays as it is"
  else
    put 644 config/server.yaml /etc/sluice/sluice.yaml
  fi
}

install_units() {
  local unit staged
  staged=$(mktemp)
  for unit in "${UNITS[@]}"; do
    sed "s#/usr/local/#$PREFIX/#g" "deploy/$unit" > "$staged"
    put 644 "$staged" "$UNIT_DIR/$unit"
  done
  rm -f "$staged"
  if systemd_runs; then
    systemctl daemon-reload
  fi
}

uninstall() {
  local unit
  if systemd_runs; then
    systemctl --quiet disable --now sluice.service 2>/dev/null ||
      say "sluice.service was not enabled"
    systemctl --quiet stop 'sluice@*.service'
  fi
  for unit in "${UNITS[@]}"; do
    rm -f "$DESTDIR$UNIT_DIR/$unit"
  done
  rm -f "$DESTDIR$PREFIX/bin/sluice"
  rm -rf "$DESTDIR$PREFIX/share/sluice" "$DESTDIR$PREFIX/share/doc/sluice"
  if systemd_runs; then
    systemctl daemon-reload
  fi
  echo "Sluice is gone from $DESTDIR$PREFIX. The configuration is left in $DESTDIR/etc/sluice."
}

while [ "$#" -gt 0 ]; do
  case "$1" in
    --prefix) [ "$#" -ge 2 ] || usage; PREFIX=${2%/}; shift 2 ;;
    --prefix=*) PREFIX=${1#*=}; PREFIX=${PREFIX%/}; shift ;;
    --build) [ "$#" -ge 2 ] || usage; BUILD=$2; shift 2 ;;
    --build=*) BUILD=${1#*=}; shift ;;
    --no-systemd) SYSTEMD=no; shift ;;
    --no-packages) PACKAGES=no; shift ;;
    --uninstall) UNINSTALL=yes; shift ;;
    -h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) usage ;;
  esac
done
# It goes into unit files and rm: plain absolute paths only.
[[ $PREFIX =~ ^(/[A-Za-z0-9._+-]+)+$ && $PREFIX != *..* ]] ||
  { echo "install.sh: --prefix wants an absolute path, not '$PREFIX'" >&2; exit 2; }
[ -n "$DESTDIR" ] || sluice_require_root

if [ "$UNINSTALL" = yes ]; then
  uninstall
  exit 0
fi
build
echo "Installing into $DESTDIR/:"
install_files
if [ "$SYSTEMD" = yes ]; then
  install_units
fi
cat <<END

Next:
  1. Put the names of your interfaces into /etc/sluice/sluice.yaml
  2. sluice check --config /etc/sluice/sluice.yaml
  3. $([ "$SYSTEMD" = yes ] && echo "systemctl enable --now sluice" ||
    echo "sluice run --config /etc/sluice/sluice.yaml")
  4. sluice show status
END
