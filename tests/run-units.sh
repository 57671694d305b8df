#!/usr/bin/env bash
# Unit and integration tests, those against a real S3 server included, and the test cluster's own tests.
set -euo pipefail
cd "$(dirname "$0")/.."
s3=units
"$KUSTODY_TEST_CLUSTER" s3 up --name "$s3" >/dev/null
trap '"$KUSTODY_TEST_CLUSTER" s3 down --name "$s3"' EXIT
export KUSTODY_S3_INFO="$KUSTODY_CACHE/clusters/$s3/s3.json"
player="$KUSTODY_CACHE/tools/asciinema-player-3.17.0/dist/bundle/asciinema-player.min.js"
# Without a browser what needs one counts as skipped.
chosen='all()'
if [ -e "$player" ] && command -v chromium >/dev/null; then export KUSTODY_PLAYER="$player"; else chosen='not test(player::)'; fi
cargo nextest run --locked --lib --bins --test it -E "$chosen"
cargo test --locked --doc
go -C tests/cluster test -count=1 ./...
