//! Bytes: HTTP heads, the upgrade, WebSocket frames, masking, UTF-8. Pure; never a clock or a socket.
