//! Who may do what: origin policy, admin guard, admission. Never blocks a loop.
