//! How the authority is trusted, system by system. Pure.

use std::path::Path;

/// A line or two for each, as they are typed; `ca` is the file of the authority.
#[must_use]
pub fn advice(ca: &Path) -> String {
    let ca = quoted(&ca.display().to_string());
    let rows = [
        (
            "Debian, Ubuntu",
            format!(
                "sudo cp {ca} /usr/local/share/ca-certificates/fantail-dev.crt && sudo update-ca-certificates"
            ),
        ),
        ("Fedora, RHEL", format!("sudo trust anchor {ca}")),
        (
            "macOS",
            format!(
                "sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain {ca}"
            ),
        ),
        ("Windows", format!("certutil -user -addstore Root {ca}")),
        (
            "Firefox",
            "Settings, Privacy & Security, View Certificates, Authorities, Import; trust it for websites"
                .to_owned(),
        ),
        (
            "Chromium",
            format!(
                "as the system on macOS and Windows; on Linux (package libnss3-tools):\n\
                 certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n fantail-dev -i {ca}"
            ),
        ),
        ("curl", format!("curl --cacert {ca} https://localhost:8443/")),
        ("Node", format!("NODE_EXTRA_CA_CERTS={ca} node app.js")),
        ("Python", format!("SSL_CERT_FILE={ca} python3 app.py   (requests: REQUESTS_CA_BUNDLE={ca})")),
        ("fantail", format!("fantail connect --ca {ca} wss://localhost:8443/ws")),
    ];
    let line =
        |(who, how): &(&str, String)| format!("  {who:<15} {}\n", how.replace('\n', &format!("\n{:18}", "")));
    rows.iter().map(line).collect()
}

/// As one word of a shell.
pub fn quoted(text: &str) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@".contains(&byte))
    {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_the_shell() {
        assert_eq!(quoted("/a/b.pem"), "/a/b.pem");
        assert_eq!(quoted("a b's"), "'a b'\\''s'");
        let advice = advice(Path::new("/tmp/my certificates/ca.pem"));
        assert!(
            advice.lines().count() > 9 && advice.contains("--cacert '/tmp/my certificates/ca.pem' "),
            "{advice}"
        );
    }
}
