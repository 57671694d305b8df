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

# The asciinema player and a browser that plays exported recordings in it. Where they cannot be had, the test says that
# it did not run.
player=$root/asciinema-player-3.17.0
if [ ! -e "$player/dist/bundle/asciinema-player.min.js" ]; then
  echo "fetching asciinema-player 3.17.0"
  fetched=$(mktemp -d)
  if (cd "$fetched" && npm pack --silent asciinema-player@3.17.0 >/dev/null &&
      echo "d03ef67fc2f32a7aa5177c0b64650c7c8fd234ef2d3e4b34886632bb3dd58c5c  asciinema-player-3.17.0.tgz" | sha256sum --check --quiet &&
      tar xzf asciinema-player-3.17.0.tgz); then
    rm -rf "$player" && mv "$fetched/package" "$player"
  else
    echo "the player could not be fetched: npm is needed" >&2
  fi
  rm -rf "$fetched"
fi
command -v chromium >/dev/null || "$(dirname "$0")/cluster/system-packages.sh" chromium ||
  echo "there is no chromium" >&2
