//! What is kept: SQLite or PostgreSQL, spoken to in the SQL that both have. Owns connections, migrations and what an
//! error of a database means. Callers name no SQL.
//!
//! Order of a room: each change of a room (a message, an edit, a deletion, a notice) takes the room's next number in the
//! transaction that writes it, by an update of the room's row, whose lock it holds until it commits. So numbers become
//! visible in their order, none is ever skipped, and whoever has read up to one has everything before it.

pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod people;
pub(crate) mod rooms;
mod schema;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sqlx::any::{AnyPoolOptions, install_default_drivers};
use sqlx::{Any, AnyPool, Executor, Row, Transaction};

use crate::random;

/// Connections to PostgreSQL at most.
const CONNECTIONS: u32 = 16;
/// How long a request waits for the database before it is told that it is away.
const PATIENCE: Duration = Duration::from_secs(5);

/// What went wrong.
#[derive(Debug)]
pub(crate) enum Error {
    /// The database can't be reached, or not in time. Nothing is known of what was to be written.
    Away(String),
    /// Anything else: a mistake of this program, or of whoever changed the tables.
    Broken(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let text = error.to_string();
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Away(text)
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Self::Away(text),
            // Classes of SQLSTATE: no connection, no resources, stopped by the operator; SQLite's busy, locked, full.
            sqlx::Error::Database(ref told) => match told.code().as_deref() {
                Some("5" | "6" | "10" | "13") => Self::Away(text),
                Some(code) if code.len() == 5 && ["08", "53", "57"].contains(&&code[..2]) => Self::Away(text),
                _ => Self::Broken(text),
            },
            _ => Self::Broken(text),
        }
    }
}

/// The database.
#[derive(Clone)]
pub(crate) struct Store {
    pool: AnyPool,
}

/// A transaction: what is written in it is there as a whole once it is committed, and not at all otherwise.
pub(crate) type Writing = Transaction<'static, Any>;

impl Store {
    /// Opens `postgres://…`, or the file of that name, which is made if it is not there; brings its tables up to date.
    pub(crate) async fn open(database: &str) -> std::result::Result<Self, String> {
        install_default_drivers();
        let is_server = database.starts_with("postgres://") || database.starts_with("postgresql://");
        let mut options = AnyPoolOptions::new().acquire_timeout(PATIENCE).max_connections(CONNECTIONS);
        let url = if is_server {
            database.to_owned()
        } else {
            make_private(database).map_err(|error| format!("{database} cannot be opened: {error}"))?;
            // One connection: SQLite has one writer, and who waits for it here waits in order.
            options = options.max_connections(1).after_connect(|connection, _| {
                Box::pin(async move {
                    // Committed is written, whatever ends the machine.
                    let how =
                        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";
                    connection.execute(how).await.map(drop)
                })
            });
            format!("sqlite://{}", escaped(database))
        };
        // Never shown with its password.
        let pool =
            options.connect(&url).await.map_err(|error| format!("the database cannot be opened: {error}"))?;
        schema::migrate(&pool)
            .await
            .map_err(|error| format!("the database's tables cannot be made: {error:?}"))?;
        Ok(Self { pool })
    }

    pub(crate) async fn begin(&self) -> Result<Writing> {
        Ok(self.pool.begin().await?)
    }

    /// A secret that all processes with this database have, random and made when it is first asked for.
    pub(crate) async fn secret(&self, name: &str) -> Result<String> {
        let insert = "INSERT INTO notes VALUES ($1, $2) ON CONFLICT DO NOTHING";
        sqlx::query(insert).bind(name).bind(random::key()).execute(&self.pool).await?;
        Ok(self.recall(name).await?.unwrap_or_default())
    }

    /// What was remembered under a name.
    pub(crate) async fn recall(&self, name: &str) -> Result<Option<String>> {
        let query = sqlx::query("SELECT value FROM notes WHERE name = $1").bind(name);
        Ok(query.fetch_optional(&self.pool).await?.map(|row| row.try_get("value")).transpose()?)
    }

    /// Remembers something, instead of what was under this name.
    pub(crate) async fn remember(&self, name: &str, value: &str) -> Result<()> {
        let insert =
            "INSERT INTO notes VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
        sqlx::query(insert).bind(name).bind(value).execute(&self.pool).await?;
        Ok(())
    }
}

/// Makes the file of a database with a mode that only its user can read; those that SQLite puts beside it get the same.
fn make_private(path: &str) -> std::io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

/// A path as it stands in a URL.
fn escaped(path: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(byte);
    path.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// Milliseconds since 1970 (UTC).
pub(crate) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Seconds since 1970 (UTC).
pub(crate) fn now() -> i64 {
    now_ms() / 1_000
}
