//! What a section of the configuration is, and the macro that declares one.
//!
//! A section's file lists each key once: its doc, name, field, kind and default. The struct, its
//! `Default`, the reading by key and the reference text all follow from that list, so they cannot
//! disagree. What values fit is the section's own `check`.

use std::any::Any;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::value::RawValue;

/// What stands where a secret's value would.
pub(super) const HIDDEN: &str = "\"(not shown)\"";

/// One key as the reference text shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyDoc {
    /// The key's name inside its section.
    pub key: &'static str,
    /// What the key does, in a sentence or two.
    pub doc: &'static str,
    /// The value now in force, as TOML; a secret's is never here.
    pub value: String,
}

/// A value that has the right kind but does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unfit {
    /// The section of the key at fault.
    pub(super) section: &'static str,
    /// The key at fault.
    pub(super) key: &'static str,
    /// What it expects and what it got.
    pub(super) problem: String,
}

/// A section of the settings, driven by `load`.
pub(super) trait Section {
    /// The name between the brackets.
    fn name(&self) -> &'static str;
    /// What the section is about.
    fn doc(&self) -> &'static str;
    /// The names of its keys.
    fn keys(&self) -> &'static [&'static str];
    /// Its keys with docs and present values.
    fn reference(&self) -> Vec<KeyDoc>;
    /// Sets a key; the error completes "expects …". A key that isn't there changes nothing.
    fn set(&mut self, key: &str, raw: &RawValue) -> Result<(), &'static str>;
    /// Appends what does not fit.
    fn check(&self, unfit: &mut Vec<Unfit>);
    /// Whether the key's value must never be shown.
    fn is_secret(&self, key: &str) -> bool;
    /// Whether a reload applies the key.
    fn is_live(&self, key: &str) -> bool;
    /// Itself, for `differs` and `adopt`.
    fn as_any(&self) -> &dyn Any;
    /// Whether the key's value is another one than in `other`, which is the same section of other settings.
    fn differs(&self, key: &str, other: &dyn Section) -> bool;
    /// Takes one key's value over from `other`, which is the same section of other settings.
    fn adopt(&mut self, key: &str, other: &dyn Section);
}

/// Declares a section: `"key" => field: Type as Kind = default`, with `live` in front where a reload applies it.
/// A key without it needs a restart: that is the safe answer for a key nobody has thought about.
macro_rules! section {
    (@live) => { false };
    (@live live) => { true };
    (
        $(#[doc = $section_doc:literal])+
        $Name:ident [$section:literal] {
            $($(#[doc = $doc:literal])+ $($live:ident)? $key:literal => $field:ident: $Type:ty as $Kind:ident = $default:expr,)+
        }
    ) => {
        $(#[doc = $section_doc])+
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Name {
            $($(#[doc = $doc])+ pub $field: $Type,)+
        }

        impl Default for $Name {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl $crate::config::section::Section for $Name {
            fn name(&self) -> &'static str {
                $section
            }

            fn doc(&self) -> &'static str {
                concat!($($section_doc),+).trim_ascii()
            }

            fn keys(&self) -> &'static [&'static str] {
                &[$($key),+]
            }

            fn reference(&self) -> Vec<$crate::config::section::KeyDoc> {
                vec![$($crate::config::section::KeyDoc {
                    key: $key,
                    doc: concat!($($doc),+).trim_ascii(),
                    value: {
                        let default: $Type = $default;
                        // Nobody has set a secret that is as it is by default.
                        match <$Kind as $crate::config::value::Kind>::SECRET && self.$field != default {
                            true => $crate::config::section::HIDDEN.to_owned(),
                            false => <$Kind as $crate::config::value::Kind>::show(&self.$field),
                        }
                    },
                }),+]
            }

            fn set(&mut self, key: &str, raw: &$crate::config::value::RawValue) -> Result<(), &'static str> {
                match key {
                    $($key => {
                        self.$field = <$Kind as $crate::config::value::Kind>::parse(raw)
                            .ok_or(<$Kind as $crate::config::value::Kind>::EXPECTS)?;
                    })+
                    _ => {}
                }
                Ok(())
            }

            fn is_secret(&self, key: &str) -> bool {
                match key {
                    $($key => <$Kind as $crate::config::value::Kind>::SECRET,)+
                    _ => false,
                }
            }

            fn is_live(&self, key: &str) -> bool {
                match key {
                    $($key => $crate::config::section::section!(@live $($live)?),)+
                    _ => false,
                }
            }

            fn as_any(&self) -> &dyn std::any::Any {
                self
            }

            fn differs(&self, key: &str, other: &dyn $crate::config::section::Section) -> bool {
                let Some(other) = other.as_any().downcast_ref::<Self>() else { return false };
                match key {
                    $($key => self.$field != other.$field,)+
                    _ => false,
                }
            }

            fn adopt(&mut self, key: &str, other: &dyn $crate::config::section::Section) {
                let Some(other) = other.as_any().downcast_ref::<Self>() else { return };
                match key {
                    $($key => self.$field = other.$field.clone(),)+
                    _ => {}
                }
            }

            fn check(&self, unfit: &mut Vec<$crate::config::section::Unfit>) {
                self.check_values(&mut $crate::config::section::Checker { section: $section, unfit });
            }
        }
    };
}
pub(super) use section;

/// Collects what does not fit in one section.
pub(super) struct Checker<'a> {
    pub(super) section: &'static str,
    pub(super) unfit: &'a mut Vec<Unfit>,
}

impl Checker<'_> {
    /// Reports `key` with a full problem text.
    pub(super) fn report(&mut self, key: &'static str, problem: String) {
        self.unfit.push(Unfit { section: self.section, key, problem });
    }

    /// Reports `key` unless `value` is inside `range`.
    pub(super) fn within<T: PartialOrd + Display>(
        &mut self,
        key: &'static str,
        value: T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(&value) {
            self.report(key, format!("expects {} to {}, got {value}", range.start(), range.end()));
        }
    }

    /// Reports `key` unless the time is zero and may be, or lies between one tick (connections count time in ticks of
    /// 100 ms) and an hour.
    pub(super) fn time(&mut self, key: &'static str, value: Duration, zero_is: Option<&str>) {
        const SHORTEST: Duration = Duration::from_millis(100);
        const LONGEST: Duration = Duration::from_secs(3600);
        if (SHORTEST..=LONGEST).contains(&value) || (value.is_zero() && zero_is.is_some()) {
            return;
        }
        let zero = zero_is.map(|meaning| format!(", or 0 for {meaning}")).unwrap_or_default();
        self.report(key, format!("expects 0.1 to 3600 seconds{zero}, got {}", value.as_secs_f64()));
    }
}
