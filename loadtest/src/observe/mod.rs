//! What is watched beside the connections: the run over time, the server's process, its metrics, the generator's own
//! load. Changes nothing of a run.

pub(crate) mod bottleneck;
pub(crate) mod kernel_counts;
pub(crate) mod launched;
pub(crate) mod machine;
pub(crate) mod memory_kinds;
pub(crate) mod progress;
pub(crate) mod quota;
pub(crate) mod screen;
pub(crate) mod series;
pub(crate) mod server_metrics;
pub(crate) mod server_process;
