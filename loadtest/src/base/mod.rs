//! What every part knows: the clock and the plan of messages, names of troubles, why there is no result, Ctrl-C.

pub(crate) mod failure;
pub(crate) mod interrupt;
pub(crate) mod note;
pub(crate) mod pace;
pub(crate) mod schedule;
pub(crate) mod secrets;
pub(crate) mod stages;
pub(crate) mod trouble;
