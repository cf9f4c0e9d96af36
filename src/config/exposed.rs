//! Secrets in files that every user of the machine may read: a warning for each, since it may be meant so.
//!
//! Driven by the loading of a configuration, at the start and on a reload. Reads modes of files, never their content.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::error::Place;
use super::settings::Settings;

/// What to say of `settings`, whose values come from where `place_of` says.
pub(super) fn warnings(settings: &Settings, place_of: impl Fn(&str, &str) -> Place) -> Vec<String> {
    let mut warnings = Vec::new();
    let keys_file = PathBuf::from(&settings.admin.keys_file);
    for section in settings.sections() {
        for key in section.keys() {
            let place = place_of(section.name(), key);
            let file = match &place {
                _ if section.name() == "admin" && *key == "keys_file" => &keys_file,
                Place::File { path, .. } if section.is_secret(key) => Path::new(path),
                _ => continue,
            };
            if let Some(mode) = mode_for_all(file) {
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
