//! Configuration: raw assignments in, checked [`Settings`] and derived [`Limits`] out.
//!
//! Three sources give raw assignments (`section`, `key`, value, place): the TOML file, then the
//! environment (`FANTAIL_SECTION_KEY`), then flags; the later one wins. Every assignment keeps the
//! place it came from, so an error names the file and line, the variable or the flag, whatever is
//! wrong with it. `cli` drives this at start and `server` again on SIGHUP, for the keys [`Settings::reloaded`]
//! can change; nothing here looks at the machine: [`Limits::derive`] is told its facts.

mod admin;
mod admission;
mod auth;
mod backend;
mod deflate;
mod drain;
mod environment;
mod error;
mod exposed;
mod file;
mod forward;
mod issuer;
mod limits;
mod limits_section;
mod load;
mod log;
mod mailbox;
mod measure;
mod origin;
mod outbox;
mod page;
mod publish;
mod reload;
mod section;
mod server;
mod settings;
mod table;
mod timeouts;
mod tls;
mod topic;
mod topic_rules;
mod totals;
mod value;
mod webhook;

pub use admin::Admin;
pub use admission::Admission;
pub use auth::Auth;
pub use backend::BackendDown;
pub use deflate::Deflate;
pub use drain::Drain;
pub use error::{ConfigError, ConfigErrors, Place};
pub use forward::Forward;
pub use issuer::IssuerRule;
pub use limits::{Limits, LimitsError, Tables};
pub use limits_section::LimitsSection;
pub use load::{Flag, KeyValue, Loaded, Sources, admin_in_file, load};
pub use log::{Log, LogFormat, LogLevel};
pub use mailbox::Mailbox;
pub use measure::Measure;
pub use origin::Origin;
pub use outbox::Outbox;
pub use page::markdown_tables;
pub use publish::Publish;
pub use reload::{Change, Reloaded};
pub use section::KeyDoc;
pub use server::Server;
pub use settings::{Settings, reference};
pub use timeouts::Timeouts;
pub use tls::Tls;
pub use topic::{Clients, TopicRule, Validate};
pub use topic_rules::KeyError;
pub use totals::Totals;
pub use value::UNSET;
pub use webhook::Webhook;
