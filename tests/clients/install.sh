#!/usr/bin/env bash
# Builds and installs the client programs of the end-to-end tests into the cache: what is there already stays. Python
# and Node.js come from the distribution where they are missing and this is root; their packages are pinned here.
set -euo pipefail
cd "$(dirname "$0")"
cache=${KUSTODY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kustody}/clients
mkdir -p "$cache/js"

missing=""
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"
command -v npm >/dev/null || missing="$missing nodejs npm"
if [ -n "$missing" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "missing: apt-get install --no-install-recommends $missing" >&2
    exit 1
  fi
  # shellcheck disable=SC2086 # a list of words
  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
fi

go -C go build -o "$cache/go" .

if ! cmp -s python/requirements.txt "$cache/python/installed"; then
  python3 -m venv --clear "$cache/python"
  "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r python/requirements.txt
  cp python/requirements.txt "$cache/python/installed"
fi

if ! cmp -s js/package-lock.json "$cache/js/installed"; then
  cp js/package.json js/package-lock.json "$cache/js/"
  npm --prefix "$cache/js" ci --no-audit --no-fund --loglevel=error
  cp js/package-lock.json "$cache/js/installed"
fi
cp js/client.mjs "$cache/js/"
