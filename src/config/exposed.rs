//! Secrets in files that every user of the machine may read: a warning for each, since it may be meant so.
//!
//! Driven by the loading of a configuration, at the start and on a reload. Reads modes of files, never their content.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::Place;
use super::settings::Settings;

/// What to say of `settings`, whose values come from where `place_of` says. Secrets of issuers are looked at as they are read.
pub(super) fn warnings(settings: &Settings, place_of: impl Fn(&str, &str) -> Place) -> Vec<String> {
    let mut warnings = Vec::new();
    for section in settings.sections() {
        for key in section.keys() {
            let place = place_of(section.name(), key);
            let mut files = files_of(settings, section.name(), key);
            if let Place::File { path, .. } = &place
                && section.is_secret(key)
            {
                files.push(path.into());
            }
            for file in files {
                let Some(mode) = mode_for_all(&file) else { continue };
                warnings.push(format!(
                    "{place}: {}.{key}: every user of this machine may read {file:?} (mode {mode:04o}); chmod it to \
                     0600, or with systemd let LoadCredential= hand it over",
                    section.name()
                ));
            }
        }
    }
    warnings
}

/// The files that a key names, if what is in them is secret.
fn files_of(settings: &Settings, section: &str, key: &str) -> Vec<PathBuf> {
    let one = |file: &str| if file.is_empty() { Vec::new() } else { vec![PathBuf::from(file)] };
    let all = |files: &[String]| files.iter().map(PathBuf::from).collect();
    match (section, key) {
        ("admin", "keys_file") => one(&settings.admin.keys_file),
        ("admin", "tls_key") => all(&settings.admin.tls_key),
        ("tls", "key") => all(&settings.tls.key),
        ("webhook", "secret_file") => one(settings.webhook.secret_file.as_deref().unwrap_or_default()),
        ("forward", "secret_file") => one(&settings.forward.secret_file),
        _ => Vec::new(),
    }
}

/// The mode of a file that everybody may read, folders included; `None` of any other, and of one that is not there.
fn mode_for_all(file: &Path) -> Option<u32> {
    let file = fs::canonicalize(file).ok()?;
    let mode = |path: &Path| fs::metadata(path).map_or(0, |data| data.permissions().mode());
    let reachable = file.ancestors().skip(1).all(|folder| mode(folder) & 0o001 != 0);
    (reachable && mode(&file) & 0o004 != 0).then(|| mode(&file) & 0o7777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    /// A folder that goes with its test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, mode: u32) -> Self {
            let path = std::env::temp_dir().join(format!("fantail-exposed-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Self(path)
        }

        fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn warned(file: &Path) -> Vec<String> {
        load(&Sources { file: Some(file.to_owned()), ..Sources::default() }).unwrap().warnings
    }

    #[test]
    fn a_file_of_keys_that_everybody_may_read_is_warned_about() {
        for (folder_mode, mode, says) in [
            (0o755, 0o644, true),
            (0o755, 0o604, true),
            (0o755, 0o640, false),
            (0o755, 0o400, false),
            (0o700, 0o644, false),
        ] {
            let folder = Folder::new(&format!("keys-{folder_mode:o}-{mode:o}"), folder_mode);
            let keys = folder.file("keys", "read:0123456789abcdef\n", mode);
            let file = folder.file("f.toml", &format!("[admin]\nkeys_file = {keys:?}\n"), 0o644);
            let warnings = warned(&file);
            assert_eq!(warnings.len(), usize::from(says), "{folder_mode:o} {mode:o}: {warnings:?}");
            if let Some(warning) = warnings.first() {
                assert!(warning.contains("f.toml:2: admin.keys_file: every user"), "{warning}");
                assert!(warning.contains(&format!("(mode {mode:04o})")), "{warning}");
            }
        }
    }

    #[test]
    fn every_file_of_a_secret_is_looked_at() {
        let folder = Folder::new("every", 0o755);
        let secret = |name: &str| folder.file(name, "whsec_0123456789abcdef0123456789abcdef\n", 0o644);
        let text = format!(
            "[webhook]\nurl = \"http://127.0.0.1:1/\"\nsecret_file = {:?}\n[forward]\nsecret_file = {:?}\n\
             [tls]\nlisten = \"127.0.0.1:0\"\ncertificate = \"c\"\nkey = {:?}\n[admin]\ntls_certificate = \"c\"\n\
             tls_key = {:?}\n",
            secret("webhook"),
            secret("forward"),
            secret("tls"),
            secret("admin"),
        );
        let warnings = warned(&folder.file("f.toml", &text, 0o644));
        for key in ["webhook.secret_file", "forward.secret_file", "tls.key", "admin.tls_key"] {
            assert!(
                warnings.iter().any(|warning| warning.contains(&format!("{key}: every user"))),
                "{warnings:?}"
            );
        }
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }

    #[test]
    fn keys_inside_a_file_count_too_and_are_not_quoted() {
        let folder = Folder::new("inline", 0o755);
        let text = "[admin]\nkeys = [\"read:0123456789abcdef\"]\n";
        assert_eq!(warned(&folder.file("a.toml", text, 0o600)), [""; 0]);
        let warnings = warned(&folder.file("b.toml", text, 0o644));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].contains("b.toml:2: admin.keys: ") && !warnings[0].contains("0123"),
            "{warnings:?}"
        );
        // Nothing secret, nothing to say.
        assert_eq!(warned(&folder.file("c.toml", "[log]\nlevel = \"warn\"\n", 0o644)), [""; 0]);
    }
}
