//! What is told of a latency: the percentiles that its values carry. Pure.

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::result::histogram_columns::HistogramColumns;

/// A percentile of fewer values than this has none beyond it, and is only their highest: it is left out, as null.
const P90_LEAST: u64 = 10;
const P99_LEAST: u64 = 100;
pub(super) const P999_LEAST: u64 = 1_000;

/// Percentiles of a latency.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencyReport {
    /// Values recorded.
    pub(crate) count: u64,
    /// Lowest.
    pub(crate) min_microseconds: f64,
    /// Mean.
    pub(crate) mean_microseconds: f64,
    /// Median.
    pub(crate) p50_microseconds: f64,
    /// 90th percentile; null of fewer than 10 values.
    pub(crate) p90_microseconds: Option<f64>,
    /// 99th percentile; null of fewer than 100 values.
    pub(crate) p99_microseconds: Option<f64>,
    /// 99.9th percentile; null of fewer than 1,000 values.
    pub(crate) p999_microseconds: Option<f64>,
    /// Highest.
    pub(crate) max_microseconds: f64,
    /// All values.
    pub(crate) histogram: HistogramColumns,
}

/// A percentile in microseconds, if so many values carry it.
pub(crate) fn carried(histogram: &Histogram<u64>, quantile: f64) -> Option<f64> {
    let least = match quantile {
        high if high > 0.99 => P999_LEAST,
        high if high > 0.9 => P99_LEAST,
        high if high > 0.5 => P90_LEAST,
        _ => 1,
    };
    (histogram.len() >= least).then(|| histogram.value_at_quantile(quantile) as f64 / 1e3)
}

impl LatencyReport {
    /// `None` if nothing was recorded. Values are nanoseconds.
    pub(crate) fn new(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            count: histogram.len(),
            min_microseconds: histogram.min() as f64 / 1e3,
            mean_microseconds: histogram.mean() / 1e3,
            p50_microseconds: at(0.5),
            p90_microseconds: carried(histogram, 0.9),
            p99_microseconds: carried(histogram, 0.99),
            p999_microseconds: carried(histogram, 0.999),
            max_microseconds: histogram.max() as f64 / 1e3,
            histogram: HistogramColumns::new(histogram),
        })
    }
}
