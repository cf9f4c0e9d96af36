//! Counters per loop and their Prometheus text. Never a lock on a hot path.
