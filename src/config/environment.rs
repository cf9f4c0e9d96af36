//! The environment as raw assignments: `FANTAIL_SECTION_KEY`. Reads the pairs it is given.

use std::ffi::{OsStr, OsString};

use super::error::{ConfigError, Place};
use super::load::Assignment;
use super::value::RawValue;
use crate::wire::nearest::nearest;

const PREFIX: &str = "FANTAIL_";

/// Variables with our prefix that are no key: the path of the configuration file, and the key that
/// `fantail publish` shows to the admin port.
const NO_KEYS: [&str; 2] = ["FANTAIL_CONFIG", ADMIN_KEY];

/// The key that `fantail publish` shows to the admin port.
pub(super) const ADMIN_KEY: &str = "FANTAIL_ADMIN_KEY";

/// The variable that sets `section.key`.
pub(super) fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{section}_{key}").to_ascii_uppercase()
}

/// Names of a section and of its keys.
pub(super) type Names = (&'static str, &'static [&'static str]);

/// Every `FANTAIL_…` of `pairs` whose section exists; a name of ours with no section is only warned about,
/// because other programs may use the prefix.
pub(super) fn assignments(
    pairs: &[(OsString, OsString)],
    sections: &[Names],
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<String>,
) -> Vec<Assignment> {
    let mut found = Vec::new();
    for (name, value) in pairs {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if NO_KEYS.contains(&name) {
            continue;
        }
        let link = is_service_link(rest);
        let rest = rest.to_ascii_lowercase();
        let place = Place::Environment(name.to_owned());
        let split = sections.iter().find_map(|(section, keys)| {
            let key = rest.strip_prefix(section)?.strip_prefix('_')?;
            Some((*section, key, keys.contains(&key)))
        });
        if link && !split.is_some_and(|(_, _, known)| known) {
            continue;
        }
        match (split, OsStr::to_str(value)) {
            (None, _) => warnings.push(unknown(name, &rest, sections)),
            (Some((section, key, _)), None) => errors.push(ConfigError {
                place,
                key: Some(format!("{section}.{key}")),
                problem: "expects UTF-8 text".to_owned(),
            }),
            (Some((section, key, _)), Some(value)) => found.push(Assignment {
                section: section.to_owned(),
                key: Some(key.to_owned()),
                value: Some(RawValue::Text(value.to_owned())),
                place,
            }),
        }
    }
    // The order of the environment is nobody's intention; errors come out the same every time.
    found.sort_by(|a, b| (&a.section, &a.key).cmp(&(&b.section, &b.key)));
    warnings.sort();
    found
}

/// Kubernetes and Docker links set such variables for a service that is called fantail or fantail-admin.
fn is_service_link(rest: &str) -> bool {
    rest.contains("SERVICE_HOST")
        || rest.contains("SERVICE_PORT")
        || rest.ends_with("PORT")
        || (rest.contains("PORT_") && (rest.contains("_TCP") || rest.contains("_UDP")))
}

fn unknown(name: &str, rest: &str, sections: &[Names]) -> String {
    let head = rest.split('_').next().unwrap_or(rest);
    match nearest(head, sections.iter().map(|(section, _)| *section)) {
        Some(section) => {
            let meant = rest.replacen(head, section, 1).to_ascii_uppercase();
            format!("environment {name} sets nothing; did you mean {PREFIX}{meant}?")
        }
        None => format!("environment {name} sets nothing: no section of the configuration begins so"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTIONS: [Names; 2] = [("server", &["listen", "share_port"]), ("admin", &["hosts"])];

    fn read(pairs: &[(&str, &str)]) -> (Vec<Assignment>, Vec<String>) {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (OsString::from(n), OsString::from(v))).collect();
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        let found = assignments(&pairs, &SECTIONS, &mut errors, &mut warnings);
        assert_eq!(errors, []);
        (found, warnings)
    }

    #[test]
    fn names_split_into_section_and_key() {
        let (found, warnings) = read(&[("FANTAIL_SERVER_CONNECTIONS_MAX", "7"), ("PATH", "/bin")]);
        assert_eq!(warnings, [""; 0]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].section.as_str(), found[0].key.as_deref()), ("server", Some("connections_max")));
    }

    #[test]
    fn a_misspelt_section_is_warned_about() {
        let (found, warnings) = read(&[("FANTAIL_SEVER_LISTEN", "x"), ("FANTAIL_HOME", "/srv")]);
        assert!(found.is_empty());
        assert_eq!(warnings.len(), 2);
        assert!(warnings.iter().any(|w| w.contains("did you mean FANTAIL_SERVER_LISTEN?")), "{warnings:?}");
    }

    #[test]
    fn service_links_are_not_ours() {
        let links = [
            "FANTAIL_PORT",
            "FANTAIL_SERVICE_HOST",
            "FANTAIL_SERVICE_PORT",
            "FANTAIL_SERVICE_PORT_WS",
            "FANTAIL_PORT_8080_TCP",
            "FANTAIL_PORT_8080_TCP_ADDR",
            "FANTAIL_ADMIN_PORT",
            "FANTAIL_ADMIN_SERVICE_HOST",
            "FANTAIL_ADMIN_PORT_8081_TCP_PROTO",
            "FANTAIL_CONFIG",
            "FANTAIL_ADMIN_KEY",
        ];
        for link in links {
            let (found, warnings) = read(&[(link, "tcp://10.0.0.1:8080")]);
            assert!(found.is_empty() && warnings.is_empty(), "{link}: {found:?} {warnings:?}");
        }
        assert_eq!(
            read(&[("FANTAIL_SERVER_SHARE_PORT", "true")]).0.len(),
            1,
            "a key of ours that ends the same"
        );
    }

    #[test]
    fn values_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt;
        let pairs = [(OsString::from("FANTAIL_SERVER_LISTEN"), OsString::from_vec(vec![0xff]))];
        let (mut errors, mut warnings) = (Vec::new(), Vec::new());
        assert!(assignments(&pairs, &SECTIONS, &mut errors, &mut warnings).is_empty());
        assert_eq!(errors.len(), 1);
    }
}
