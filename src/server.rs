//! Puts the rooms together: threads, signals, drain, stop.
