//! The event loops: the only code that touches mio. Never parses.
