//! Topics, subscriptions, mailboxes and the router. Never writes to a socket.
