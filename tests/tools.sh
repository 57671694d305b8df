#!/usr/bin/env bash
# Installs the tools that the checks use: programs of the distribution, and once, into the cache, those of cargo. What is
# on the PATH already is used as it is.
set -euo pipefail
missing=()
for program in python3 zstd; do
  command -v "$program" >/dev/null || missing+=("$program")
done
[ ${#missing[@]} = 0 ] || "$(dirname "$0")/cluster/system-packages.sh" "${missing[@]}"
root=${KUSTODY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kustody}/tools
export PATH="$root/bin:$PATH"
install() { # name, version
  command -v "$1" >/dev/null && return
  echo "installing $1 $2"
  # A tool is built once and run for seconds: optimising it would only cost time.
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    cargo install --quiet --locked --root "$root" --version "$2" "$1"
}
install cargo-nextest 0.9.143
install cargo-deny 0.20.2
