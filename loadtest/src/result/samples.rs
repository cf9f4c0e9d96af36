//! The run over time as the result file holds it. Plain values.

use serde::Serialize;

/// Declares a sample and, for the result file, the list of columns it becomes.
macro_rules! columns {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty,)+) => {
        /// The state of a run at one moment.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Sample { $($(#[doc = $doc])+ pub(crate) $name: $type,)+ }

        /// Samples as the result file holds them: a list for each figure, all of one length.
        #[derive(Clone, Debug, Default, Serialize)]
        pub(crate) struct Columns { $($(#[doc = $doc])+ pub(crate) $name: Vec<$type>,)+ }

        impl Columns {
            /// The samples, turned around.
            pub(crate) fn new(samples: &[Sample]) -> Self {
                Self { $($name: samples.iter().map(|sample| sample.$name).collect(),)+ }
            }
        }
    };
}

columns! {
    /// Seconds since the first connect began.
    at_seconds: f64,
    /// Connections open at that moment.
    open: u64,
    /// Connections that got their 101 so far.
    opened: u64,
    /// Connections that could not be opened so far.
    failed: u64,
    /// Connections lost so far.
    lost: u64,
    /// Messages received so far, each counted once per connection.
    messages: u64,
    /// Sends that left late so far.
    late_sends: u64,
    /// Median connect latency since the sample before; null if nothing was opened.
    connect_p50_microseconds: Option<f64>,
    /// 99th percentile of the same; null of fewer than 100 values.
    connect_p99_microseconds: Option<f64>,
    /// Median message latency since the sample before; null if nothing came.
    latency_p50_microseconds: Option<f64>,
    /// 99th percentile of the same; null of fewer than 100 values.
    latency_p99_microseconds: Option<f64>,
    /// Highest of the same.
    latency_max_microseconds: Option<f64>,
    /// Share of the tenths of a second since the sample before in which a worker had no time left; null without load.
    generator_busy_share: Option<f64>,
    /// Share of that time for which workers waited for a processor; null without load or where the kernel does not say.
    generator_processor_wait_share: Option<f64>,
    /// Processor time of the generator so far.
    generator_cpu_seconds: Option<f64>,
    /// Processor time of the server since it began; null without `--pid` or `--server-metrics`.
    server_cpu_seconds: Option<f64>,
    /// Memory of the generator: RssAnon + Shmem + HugeTLB + Swap.
    generator_user_bytes: Option<u64>,
    /// The same of the server; null without `--pid`, or if its metrics do not tell.
    server_user_bytes: Option<u64>,
    /// Resident memory of the server: anonymous, shared and file pages.
    server_resident_bytes: Option<u64>,
}
