#!/usr/bin/env bash
# Remakes the tables of docs/memory.md from new measurements and says which figures differ from the old ones.
# `docs/reproduce.sh --help` has the options; --quick takes about a minute and writes nothing into docs/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo build --locked --release --workspace --bins --example floor
exec python3 benches/memory_study "$@"
