#!/usr/bin/env bash
# Remakes the tables of docs/memory.md from new measurements and says how far they agree with the old ones.
# `docs/reproduce.sh --help` has the options; --quick takes two minutes and writes nothing into docs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --locked --release --bin fantail --example floor
exec python3 benches/memory_study "$@"
