#!/bin/sh
# Installs the distribution packages that a cluster with a node needs, and those named as arguments, or lists them when
# it may not.
# Idempotent: says nothing when everything is there.
set -eu

packages="containerd runc containernetworking-plugins busybox-static iptables iproute2 $*"

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "not a Debian system: please install the equivalents of: $packages" >&2
    exit 1
fi

missing=""
for package in $packages; do
    state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "these packages are missing and only root can install them:" >&2
    for package in $missing; do echo "    $package" >&2; done
    echo "run: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

# shellcheck disable=SC2086 # both are lists of words
if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; then
    $as_root apt-get update -q
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi
