#!/usr/bin/env bash
# Builds and installs the client programs of the end-to-end tests into the cache: what is there already stays. Python
# and Node.js come from the distribution where they are missing and this is root; their packages are pinned here. Where
# those in Python and JavaScript cannot be had that is said here, and their tests count as ignored.
set -euo pipefail
cd "$(dirname "$0")"
cache=${KUSTODY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kustody}/clients
mkdir -p "$cache/js"

missing=""
python3 -c 'import ensurepip, venv' 2>/dev/null || missing="python3-venv"
command -v npm >/dev/null || missing="$missing nodejs npm"
if [ -n "$missing" ]; then
  # shellcheck disable=SC2086 # a list of words
  ../cluster/system-packages.sh $missing || echo "clients in Python or JavaScript cannot be installed" >&2
fi

go -C go build -o "$cache/go" .

install_python() {
  rm -rf "$cache/python"
  python3 -m venv "$cache/python" &&
    "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r python/requirements.txt &&
    cp python/requirements.txt "$cache/python/installed"
}
cmp -s python/requirements.txt "$cache/python/installed" || install_python ||
  echo "the client in Python could not be installed" >&2

install_js() {
  rm -f "$cache/js/installed"
  cp js/package.json js/package-lock.json "$cache/js/" &&
    npm --prefix "$cache/js" ci --no-audit --no-fund --loglevel=error &&
    cp js/package-lock.json "$cache/js/installed"
}
cmp -s js/package-lock.json "$cache/js/installed" || install_js ||
  echo "the client in JavaScript could not be installed" >&2
cp js/client.mjs "$cache/js/"
