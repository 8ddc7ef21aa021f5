#!/usr/bin/env bash
# Checks that this machine can build and test Gristmill. Missing Debian packages are installed when root runs this, each
# install with a printed line; anybody else gets the one line to run. Exit status 78: something is still missing.
set -euo pipefail

rust_wanted=1.95.0

# command → Debian package, with the reason:
#   cc, headers   the C parts of glommio and jemalloc
#   make          jemalloc's own build
#   git           called by glommio's build script
#   python3       the test client that is written from docs/protocol.md alone, and handlers in Python
#   valgrind      counts the instructions of make bench-count, a step of make test
packages=()
command -v cc >/dev/null || packages+=(gcc)
[ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
command -v make >/dev/null || packages+=(make)
command -v git >/dev/null || packages+=(git)
command -v python3 >/dev/null || packages+=(python3)
command -v valgrind >/dev/null || packages+=(valgrind)

[ ${#packages[@]} -eq 0 ] || "$(dirname "$0")/packages.sh" "${packages[@]}"

if ! command -v cargo >/dev/null || ! command -v rustc >/dev/null; then
    echo "setup: no Rust toolchain found; install Rust $rust_wanted or newer from https://rustup.rs and try again" >&2
    exit 78
fi
# With rustup, this takes the toolchain that rust-toolchain.toml names (and fetches it when it is not there).
if ! rust_found=$(rustc --version | cut -d' ' -f2) || [ -z "$rust_found" ]; then
    echo "setup: rustc does not run; Rust $rust_wanted or newer is needed, see https://rustup.rs" >&2
    exit 78
fi
if [ "$(printf '%s\n' "$rust_wanted" "${rust_found%%-*}" | sort -V | head -n 1)" != "$rust_wanted" ]; then
    echo "setup: found Rust $rust_found, need $rust_wanted or newer; run: rustup toolchain install $rust_wanted" >&2
    exit 78
fi
