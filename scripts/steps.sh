#!/usr/bin/env bash
# Runs make targets one after the other, says how long each took, and stops at the first that fails.
set -euo pipefail

started=$SECONDS
for step in "$@"; do
    echo "== $step"
    step_started=$SECONDS
    status=0
    ${MAKE:-make} --no-print-directory "$step" || status=$?
    if [ "$status" -ne 0 ]; then
        echo "== $step: FAILED after $((SECONDS - step_started)) s (make $step runs it alone)" >&2
        exit "$status"
    fi
    echo "== $step: ok, $((SECONDS - step_started)) s"
done
echo "== all $# steps ok, $((SECONDS - started)) s"
