#!/usr/bin/env bash
# Installs Debian packages when root runs this, with a printed line; anybody else gets the one line to run and status 78.
set -euo pipefail

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing missing Debian packages: $*"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
else
    echo "setup: missing Debian packages; run: sudo apt-get install -y $*" >&2
    exit 78
fi
