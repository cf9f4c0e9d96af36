//! `fantail preflight --tls`: what it says of files, of a configuration and of running servers, and with which exit code.

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, SerialNumber, date_time_ymd,
};
use serde_json::Value;

use crate::secure::{Authority, file, flags, usual};
use crate::server::{Server, command, fails, nobody};

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The exit code and the answer as JSON.
fn ask(arguments: &[&str]) -> (Option<i32>, Value) {
    let arguments = [&["preflight", "--tls", "--json"], arguments].concat();
    let output = command(&arguments, &[]).output().expect("the binary runs");
    let parsed = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), parsed)
}

/// Level and words of each finding of this name in the first chain.
fn found<'a>(report: &'a Value, name: &str) -> Vec<(&'a str, &'a str)> {
    let findings = report["chains"][0]["findings"].as_array().expect("findings");
    let of_name = findings.iter().filter(|finding| finding["name"] == name);
    of_name
        .map(|one| (one["level"].as_str().expect("a level"), one["said"].as_str().expect("words")))
        .collect()
}

#[track_caller]
fn expect(report: &Value, name: &str, level: &str, part: &str) {
    let found = found(report, name);
    assert!(found.iter().any(|(of, said)| *of == level && said.contains(part)), "{name}: {found:?}");
}

/// An authority below another: its certificate, and what signs with it.
fn below(authority: &Authority, name: &str) -> (String, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority.issuer).expect("a certificate");
    (certificate.pem(), Issuer::new(params, key))
}

#[test]
fn files_that_clients_take_are_explained() {
    let (ca, files) = (usual().ca(), &usual().files);
    let named = ["--ca", &ca, "--certificate", text(&files.certificate), "--key", text(&files.key)];
    let (code, report) = ask(&[&named[..], &["--host", "localhost", "--host", "127.0.0.1"]].concat());
    assert_eq!((code, &report["holds"]), (Some(0), &true.into()), "{report}");
    let own = &report["chains"][0]["certificates"][0];
    assert_eq!(own["names"], serde_json::json!(["127.0.0.1", "localhost"]));
    assert_eq!((&own["key"], &own["authority"]), (&"ECDSA P-256".into(), &false.into()));
    assert!(own["issuer"].as_str().expect("a name").contains("Fantail's tests"), "{own}");
    assert_eq!(report["chains"][0]["agreed"], Value::Null);
    expect(&report, "key", "fine", "is that of");
    expect(&report, "expiry", "fine", "days are left");
    expect(&report, "issuers", "fine", "--ca");
    assert_eq!(found(&report, "client").len(), 2, "{report}");

    let output = command(&[&["preflight", "--tls"], &named[..]].concat(), &[]).output().expect("it runs");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    for part in ["for 127.0.0.1, localhost", "ECDSA P-256", "fine    key: ", "Clients take it."] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn each_thing_that_is_wrong_is_named_and_fails() {
    let (ca, authority) = (usual().ca(), &usual().authority);
    let look = |certificate: &str, more: &[&str]| {
        let path = file("preflight.pem", certificate);
        let (code, report) = ask(&[&["--ca", &ca, "--certificate", text(&path)], more].concat());
        assert_eq!((code, &report["holds"]), (Some(1), &false.into()), "{report}");
        report
    };
    let usual_pem = std::fs::read_to_string(&usual().files.certificate).expect("a file");
    expect(&look(&usual_pem, &["--host", "app.test"]), "client", "wrong", "is not for app.test, but for");

    let (_, other_key) = authority.sign(&["localhost"]);
    let other_key = file("preflight.key", &other_key);
    expect(&look(&usual_pem, &["--key", text(&other_key)]), "key", "wrong", "another certificate's");

    let (old, _) = authority.sign_with(&["localhost"], |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let report = look(&old, &[]);
    expect(&report, "expiry", "wrong", "has expired at 2021-01-01T00:00:00Z");
    expect(&report, "client", "wrong", "has expired");

    let elsewhere = Authority::new("nobody knows").sign(&["localhost"]).0;
    expect(&look(&elsewhere, &[]), "issuers", "wrong", "nobody knows");

    let nameless = authority.sign(&[]).0;
    expect(&look(&nameless, &[]), "client", "wrong", "no name");
}

#[test]
fn a_chain_lacks_one_between_or_has_them_in_another_order() {
    let (ca, authority) = (usual().ca(), &usual().authority);
    let (between, issuer) = below(authority, "between");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["app.test".to_owned()]).expect("names");
    let own = params.signed_by(&key, &issuer).expect("a certificate").pem();
    let look = |chain: &str| {
        let (chain, key) = (file("chain.pem", chain), file("chain.key", &key.serialize_pem()));
        ask(&["--ca", &ca, "--certificate", text(&chain), "--key", text(&key)])
    };
    let (code, report) = look(&format!("{own}{between}"));
    assert_eq!(code, Some(0), "{report}");
    expect(&report, "order", "fine", "2 certificates");

    let (code, report) = look(&own);
    assert_eq!(code, Some(1), "{report}");
    expect(&report, "issuers", "wrong", "between");
    expect(&report, "client", "wrong", "does not send the certificate of that issuer");

    let (code, report) = look(&format!("{between}{own}"));
    assert_eq!(code, Some(1), "{report}");
    expect(&report, "key", "wrong", "certificate 2");
    expect(&report, "order", "wrong", "in front of its issuer's");
}

#[test]
fn what_stands_behind_whom_clients_trust_is_looked_at_by_nobody() {
    let (root_key, root) = (KeyPair::generate().expect("a key"), {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "the new root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    });
    let trusted = file("new-root.pem", &root.self_signed(&root_key).expect("a root").pem());
    // The same name and key, signed by a root that is trusted no more, and expired.
    let mut crossed = root.clone();
    crossed.not_before = date_time_ymd(2020, 1, 1);
    crossed.not_after = date_time_ymd(2021, 1, 1);
    let old = Authority::new("the old root");
    let crossed = crossed.signed_by(&root_key, &old.issuer).expect("a certificate").pem();
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["app.test".to_owned()]).expect("names");
    let own = params.signed_by(&key, &Issuer::new(root, root_key)).expect("a certificate").pem();
    let chain = file("crossed.pem", &format!("{own}{crossed}"));
    let (code, report) = ask(&["--ca", text(&trusted), "--certificate", text(&chain)]);
    assert_eq!((code, &report["holds"]), (Some(0), &true.into()), "{report}");
    expect(&report, "issuers", "fine", "the new root");
    expect(&report, "expiry", "fine", "days are left");
    // Who trusts the old one alone needs it.
    let (code, report) = ask(&["--ca", &old.file("old-root.pem"), "--certificate", text(&chain)]);
    assert_eq!(code, Some(1), "{report}");
    expect(&report, "expiry", "wrong", "has expired at 2021-01-01T00:00:00Z");
}

#[test]
fn each_host_is_asked_for_where_several_certificates_are() {
    let ca = usual().ca();
    let (other, other_key) = usual().authority.sign(&["*.app.test", "192.0.2.1"]);
    let (other, other_key) = (file("other.pem", &other), file("other.key", &other_key));
    let files = &usual().files;
    let config = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = [{:?}, {other:?}]\nkey = [{:?}, {other_key:?}]\n",
        files.certificate, files.key
    );
    let config = file("several.toml", &config);
    let server = Server::start(&["--config", text(&config), "--tls-listen", "127.0.0.1:0"], &[]);
    let at = format!("localhost:{}", server.tls.expect("a port of TLS").port());
    for named in [["--connect", at.as_str()], ["--config", text(&config)]] {
        let named = [&["--ca", &ca][..], &named].concat();
        let hosts = ["--host", "localhost", "--host", "a.app.test", "--host", "127.0.0.1"];
        let (code, report) = ask(&[&named[..], &hosts].concat());
        assert_eq!((code, report["chains"].as_array().map(Vec::len)), (Some(0), Some(2)), "{report}");
        assert_eq!(found(&report, "client").len(), 2, "{report}");
        assert_eq!(report["chains"][1]["certificates"][0]["names"][0], "*.app.test", "{report}");
        // Nobody asks for an address: who does gets the first, which is not for it.
        for host in ["192.0.2.1", "elsewhere.test"] {
            let (code, report) = ask(&[&named[..], &["--host", host]].concat());
            assert_eq!(code, Some(1), "{report}");
            expect(&report, "client", "wrong", host);
        }
    }
}

#[test]
fn a_server_shows_what_it_agrees_on_and_what_it_has() {
    let (ca, flags) = (usual().ca(), flags(&usual().files));
    for (lean, started) in [("true", &[][..]), ("true", &["--tls-lean"]), ("false", &["--tls-lean=false"])] {
        let all: Vec<&str> = flags.iter().map(String::as_str).chain(started.iter().copied()).collect();
        let server = Server::start(&all, &[]);
        let at = format!("localhost:{}", server.tls.expect("a port of TLS").port());
        let (code, report) = ask(&["--ca", &ca, "--connect", &at]);
        assert_eq!(code, Some(0), "{lean}: {report}");
        let agreed = &report["chains"][0]["agreed"];
        assert_eq!(
            (&agreed["version"], &agreed["alpn"]),
            (&"TLS 1.3".into(), &"http/1.1".into()),
            "{agreed}"
        );
        assert!(agreed["suite"].as_str().expect("a suite").starts_with("TLS_AES_"), "{agreed}");
        assert!(agreed["group"].is_string(), "{agreed}");
        expect(&report, "client", "fine", "who asks for localhost");
        let (code, report) =
            ask(&["--ca", &ca, "--connect", &format!("wss://{at}/ws"), "--host", "app.test"]);
        assert_eq!(code, Some(1), "{report}");
        expect(&report, "client", "wrong", "is not for app.test");
        // It goes as it came.
        assert_eq!(server.metric("fantail_tls_failures_total", ""), 0);

        let admin = server.admin.to_string();
        let (code, said) = fails(command(&["preflight", "--tls", "--connect", &admin], &[]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("does not speak TLS"), "{said}");
    }
}

#[test]
fn everything_that_is_configured_is_looked_at_whatever_is_wrong() {
    let (ca, files) = (usual().ca(), &usual().files);
    let fixture = |name: &str| format!("{}/tests/fixtures/ocsp/{name}", env!("CARGO_MANIFEST_DIR"));
    let authority = Authority::new("devices of preflight");
    let devices = authority.file("preflight-devices.pem");
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2024, 1, 1),
        next_update: date_time_ymd(2024, 2, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let late =
        file("preflight-late.crl", &list.signed_by(&authority.issuer).expect("a list").pem().expect("PEM"));
    let empty = file("preflight-empty.crl", "");
    let (other, other_key) = usual().authority.sign(&["operators.test"]);
    let (other, other_key) = (file("preflight-admin.pem", &other), file("preflight-admin.key", &other_key));
    let server = fixture("server.pem");
    let config = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\n\
         certificate = [\"/nowhere/a.pem\", {:?}, {server:?}, {server:?}]\nkey = [\"/nowhere/a.key\", {:?}, {server:?}, {server:?}]\n\
         ocsp = [\"\", {:?}, {:?}, {:?}]\nclient_ca = [\"/nowhere/ca.pem\", {devices:?}]\nclient_crl = [{late:?}, {empty:?}]\n\
         [admin]\ntls_certificate = {other:?}\ntls_key = {other_key:?}\ntls_client_ca = {devices:?}\n",
        files.certificate,
        files.key,
        fixture("other.der"),
        fixture("good.der"),
        fixture("expired.der"),
    );
    let config = file("everything.toml", &config);
    let (code, report) = ask(&["--ca", &ca, "--host", "localhost", "--config", text(&config)]);
    assert_eq!((code, &report["holds"]), (Some(1), &false.into()), "{report}");
    let chains = report["chains"].as_array().expect("chains");
    assert_eq!(chains.len(), 4, "{report}");
    // The operators' certificate is not asked for the name of the clients'.
    assert_eq!(chains[3]["source"], text(&other), "{report}");
    let said = chains[3]["findings"].as_array().expect("findings");
    assert!(said.iter().all(|finding| finding["level"] == "fine"), "{report}");
    let rows: Vec<(&str, &str, &str)> = report["files"]
        .as_array()
        .expect("files")
        .iter()
        .map(|one| {
            let part = |name: &str| one[name].as_str().expect("text");
            (part("key"), part("level"), part("said"))
        })
        .collect();
    let wanted = [
        ("tls.certificate", "wrong", "cannot be read"),
        ("tls.ocsp", "wrong", "is about other certificates"),
        ("tls.ocsp", "fine", "it is sent for another"),
        ("tls.ocsp", "warning", "has expired at"),
        ("tls.client_ca", "wrong", "cannot be read"),
        ("tls.client_ca", "fine", "devices of preflight: expires in"),
        ("tls.client_crl", "warning", "0 revoked by CN=devices of preflight, the next was due"),
        ("tls.client_crl", "wrong", "has no list of revoked certificates"),
        ("admin.tls_client_ca", "fine", "devices of preflight: expires in"),
    ];
    assert_eq!(rows.len(), wanted.len(), "{rows:?}");
    for (row, (key, level, part)) in rows.iter().zip(wanted) {
        assert!(row.0 == key && row.1 == level && row.2.contains(part), "{part}: {row:?}");
    }
    let output = command(&["preflight", "--tls", "--ca", &ca, "--config", text(&config)], &[]).output();
    let said = String::from_utf8(output.expect("the binary runs").stdout).expect("UTF-8");
    assert!(
        said.contains("\nwarning tls.client_crl: ") && said.contains("\nwrong   tls.certificate: "),
        "{said}"
    );
}

#[test]
fn each_name_that_is_not_answered_is_told() {
    let (_held, free) = nobody();
    let asked =
        ["preflight", "--tls", "--connect", &free.to_string(), "--host", "a.test", "--host", "b.test"];
    let (code, said) = fails(command(&asked, &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("asked for a.test: ") && said.contains("asked for b.test: "), "{said}");
}

#[test]
fn what_is_configured_is_looked_at_and_wrong_usage_is_named() {
    let (ca, files) = (usual().ca(), &usual().files);
    let config = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificate = {:?}\nkey = {:?}\n",
        files.certificate, files.key
    );
    let config = file("preflight.toml", &config);
    let (code, report) = ask(&["--ca", &ca, "--config", text(&config)]);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["chains"][0]["source"], text(&files.certificate));
    expect(&report, "key", "fine", "is that of");

    for (arguments, part) in [
        (&["--tls", "--ca", &ca][..], "--certificate FILE"),
        (&["--tls", "--connections", "5"], "--tls"),
        (&["--host", "localhost", "--connections", "5"], "--tls"),
        (&["--tls", "--ca", &ca, "--certificate", "/nowhere.pem"], "/nowhere.pem: cannot be read"),
        (&["--tls", "--ca", &ca, "--certificate", text(&files.key)], "has no certificate"),
        (&["--tls", "--ca", &ca, "--connect", "http://localhost:1"], "no URL of TLS"),
        (&["--tls", "--ca", &ca, "--connect", "localhost:x"], "--connect"),
    ] {
        let (code, said) = fails(command(&[&["preflight"], arguments].concat(), &[]));
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(part), "{part}: {said}");
    }
}
