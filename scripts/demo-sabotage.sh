#!/usr/bin/env bash
# The demo must notice broken promises: with each sabotage it must end with status 1 and name differences.
# First argument: a test build of the program (feature `sabotage`).
set -euo pipefail

program=$(realpath "$1")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for how in ack-before-write forget-position; do
    status=0
    "$program" demo word-count --lines 40000 --data "$folder/$how" --sabotage "$how" >"$folder/out" 2>&1 || status=$?
    if [ "$status" -ne 1 ] || ! grep -q '^NOT exact: .* [1-9][0-9]* differences$' "$folder/out"; then
        cat "$folder/out"
        echo "demo-sabotage: $how ended with status $status; 1 and differences are wanted" >&2
        exit 1
    fi
    echo "$how: noticed: $(tail -n 1 "$folder/out")"
done
# The same build without sabotage must be exact, so that the differences above are those of the sabotage.
"$program" demo word-count --lines 40000 --data "$folder/none" >"$folder/out" 2>&1 || { cat "$folder/out"; exit 1; }
tail -n 1 "$folder/out"
