//! Raw configuration in, checked `Settings` out. Never read twice.
