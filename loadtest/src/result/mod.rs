//! What was counted, what is said about it, and the files it is written to. Plain values in, texts and a verdict out;
//! it knows neither flags nor connections.

pub(crate) mod course;
pub(crate) mod figures;
pub(crate) mod findings;
pub(crate) mod histogram_columns;
pub(crate) mod html;
pub(crate) mod json_text;
pub(crate) mod junit;
pub(crate) mod messages_report;
pub(crate) mod metrics_report;
pub(crate) mod regression;
pub(crate) mod repeat;
pub(crate) mod report;
pub(crate) mod result_file;
pub(crate) mod samples;
pub(crate) mod strain;
pub(crate) mod tally;
pub(crate) mod threshold;
pub(crate) mod whole_file;
