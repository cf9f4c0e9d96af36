//! `fantail serve`: flags over environment over file, then logging, then the server.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::config::{Flag, Loaded, Sources, load};
use crate::logging;
use crate::server::{self, Reload};
use crate::sys::{memory, signals};

use super::{FAILED, MISUSED, config_file, fail};

/// Flags of `serve`. Values stay text: the configuration reads and checks them as it does every other source.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct ServeArgs {
    /// TOML file with the configuration [env: FANTAIL_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port for clients [default: 127.0.0.1:8080; env: FANTAIL_SERVER_LISTEN]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Address and port for publishing and operation, off loopback only with admin.keys [default: 127.0.0.1:8081; env: FANTAIL_SERVER_ADMIN]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Address and port for clients that speak TLS [default: none; env: FANTAIL_TLS_LISTEN]
    #[arg(long, value_name = "ADDR")]
    tls_listen: Option<String>,
    /// PEM file with the certificate and its chain, several with commas between them [env: FANTAIL_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// PEM file with the private key, if it is not with the certificate [env: FANTAIL_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Whether connections of TLS 1.3 are kept as plain data, in 208 bytes instead of 3,500 [default: true; env: FANTAIL_TLS_LEAN]
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls_lean: Option<String>,
    /// INSECURE, for debugging with Wireshark: write the secrets of all connections over TLS to a file, with which whoever
    /// has it reads them [env: FANTAIL_TLS_INSECURE_KEY_LOG_FILE]
    #[arg(long, value_name = "FILE")]
    tls_insecure_key_log: Option<String>,
    /// Number of event loops, 0 for automatic [default: 0; env: FANTAIL_SERVER_LOOPS]
    #[arg(long, value_name = "N")]
    loops: Option<String>,
    /// Most client connections, 0 for as many as fit [default: 0; env: FANTAIL_SERVER_CONNECTIONS_MAX]
    #[arg(long, value_name = "N")]
    connections_max: Option<String>,
    /// Share the port with other processes that do so too [env: FANTAIL_SERVER_SHARE_PORT]
    #[arg(long)]
    share_port: bool,
    /// Publish simulated prices and sensors, shown live on /demo [env: FANTAIL_SERVER_DEMO]
    #[arg(long)]
    demo: bool,
    /// Time over which clients are told to go when it ends, 0 for all at once [default: 10; env: FANTAIL_DRAIN_SECONDS]
    #[arg(long, value_name = "SECONDS")]
    drain_seconds: Option<String>,
    /// error, warn, info, debug or trace [default: info; env: FANTAIL_LOG_LEVEL]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text; env: FANTAIL_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
}

/// Serves until told to stop.
pub(super) fn run(args: &ServeArgs) -> ExitCode {
    let Loaded { settings, warnings, .. } = match load(&args.sources(std::env::vars_os().collect())) {
        Ok(loaded) => loaded,
        Err(errors) => return fail(MISUSED, &errors.to_string()),
    };
    memory::map_large_blocks();
    // Before the first thread, which all inherit it: a signal must never be handled by a loop.
    if let Err(error) = signals::block_all() {
        return fail(FAILED, &format!("cannot block signals: {error}"));
    }
    let log = &settings.log;
    let (guard, switch) = match logging::start(log.level, log.format, log.lines_per_second) {
        Ok(guard) => guard,
        Err(error) => return fail(FAILED, &format!("logging cannot be started: {error}")),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let again = args.clone();
    let reload = Reload {
        read: Box::new(move || load(&again.sources(std::env::vars_os().collect()))),
        set_log_level: Box::new(move |level| switch.set(level)),
    };
    let outcome = server::run(settings, reload);
    let Err(error) = outcome else {
        drop(guard);
        return ExitCode::SUCCESS;
    };
    guard.finish(&error.to_string());
    ExitCode::from(if error.is_configuration() { MISUSED } else { FAILED })
}

impl ServeArgs {
    pub(super) fn sources(&self, environment: Vec<(OsString, OsString)>) -> Sources {
        let [share_port, demo] = [self.share_port, self.demo].map(|on| on.then(|| "true".to_owned()));
        let flags = [
            ("--listen", "server", "listen", &self.listen),
            ("--admin", "server", "admin", &self.admin),
            ("--tls-listen", "tls", "listen", &self.tls_listen),
            ("--tls-certificate", "tls", "certificate", &self.tls_certificate),
            ("--tls-key", "tls", "key", &self.tls_key),
            ("--tls-lean", "tls", "lean", &self.tls_lean),
            ("--tls-insecure-key-log", "tls", "insecure_key_log_file", &self.tls_insecure_key_log),
            ("--loops", "server", "loops", &self.loops),
            ("--connections-max", "server", "connections_max", &self.connections_max),
            ("--share-port", "server", "share_port", &share_port),
            ("--demo", "server", "demo", &demo),
            ("--drain-seconds", "drain", "seconds", &self.drain_seconds),
            ("--log-level", "log", "level", &self.log_level),
            ("--log-format", "log", "format", &self.log_format),
        ]
        .into_iter()
        .filter_map(|(flag, section, key, value)| Some(Flag { flag, section, key, value: value.clone()? }))
        .collect();
        Sources { file: config_file(self.config.as_ref(), &environment), environment, flags }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{LogFormat, LogLevel};

    #[test]
    fn every_flag_reaches_its_key() {
        let text = |value: &str| Some(value.to_owned());
        let args = ServeArgs {
            config: None,
            listen: text("127.0.0.1:1"),
            admin: text("127.0.0.1:2"),
            tls_listen: text("127.0.0.1:5"),
            tls_certificate: text("a.pem,b.pem"),
            tls_key: text("c.pem,d.pem"),
            tls_lean: text("false"),
            tls_insecure_key_log: text("secrets"),
            loops: text("3"),
            connections_max: text("4"),
            share_port: true,
            demo: true,
            drain_seconds: text("0"),
            log_level: text("debug"),
            log_format: text("json"),
        };
        let settings =
            load(&args.sources(vec![("FANTAIL_SERVER_LOOPS".into(), "9".into())])).unwrap().settings;
        assert_eq!((settings.server.listen.port(), settings.server.admin.port()), (1, 2));
        assert_eq!(settings.tls.files(), [("a.pem", "c.pem"), ("b.pem", "d.pem")]);
        assert!(!settings.tls.lean && settings.tls.insecure_key_log_file == "secrets");
        assert_eq!((settings.server.loops, settings.server.connections_max), (Some(3), Some(4)));
        assert!(settings.server.share_port && settings.server.demo && settings.drain.length.is_zero());
        assert_eq!((settings.log.level, settings.log.format), (LogLevel::Debug, LogFormat::Json));
    }

    #[test]
    fn the_file_is_the_flags_or_the_variables_and_an_empty_variable_names_none() {
        let file = |flag: Option<&str>, variable: &str| {
            let args = ServeArgs { config: flag.map(PathBuf::from), ..ServeArgs::default() };
            args.sources(vec![("FANTAIL_CONFIG".into(), variable.into())]).file
        };
        assert_eq!(file(None, "here.toml"), Some("here.toml".into()));
        assert_eq!(file(Some("there.toml"), "here.toml"), Some("there.toml".into()));
        assert_eq!(file(None, ""), None);
        assert_eq!(file(Some("there.toml"), ""), Some("there.toml".into()));
        assert_eq!(ServeArgs::default().sources(Vec::new()).file, None);
    }

    #[test]
    fn absent_flags_leave_the_environment_alone() {
        let environment = vec![("FANTAIL_SERVER_SHARE_PORT".into(), "true".into())];
        let settings = load(&ServeArgs::default().sources(environment)).unwrap().settings;
        assert!(settings.server.share_port);
    }
}
