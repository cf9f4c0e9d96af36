//! The byte stream under a connection. Never protocol.
