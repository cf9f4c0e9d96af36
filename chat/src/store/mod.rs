//! What is kept: SQLite or PostgreSQL, spoken to in the SQL that both have. Owns connections, migrations and what an
//! error of a database means. Callers name no SQL.
//!
//! Order of a room: each change of a room (a message, an edit, a deletion, a notice) takes the room's next number in the
//! transaction that writes it, by an update of the room's row, whose lock it holds until it commits. So numbers become
//! visible in their order, none is ever skipped, and whoever has read up to one has everything before it.

pub(crate) mod devices;
pub(crate) mod messages;
pub(crate) mod outbox;
pub(crate) mod people;
pub(crate) mod private;
pub(crate) mod rooms;
mod schema;

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
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
            sqlx::Error::Database(ref told) if told.code().is_some_and(|code| passes(&code)) => {
                Self::Away(text)
            }
            _ => Self::Broken(text),
        }
    }
}

/// Whether what a database's code says may be over a little later.
fn passes(code: &str) -> bool {
    // SQLSTATE: no connection, one of two that waited for each other, no resources, stopped by the operator.
    if code.len() == 5 {
        return ["08", "40", "53", "57"].iter().any(|class| code.starts_with(class));
    }
    // SQLite's busy, locked, I/O error and full. What went wrong exactly stands above the lowest eight bits.
    code.parse().is_ok_and(|code: u32| matches!(code & 0xff, 5 | 6 | 10 | 13))
}

/// The database.
#[derive(Clone)]
pub(crate) struct Store {
    pool: AnyPool,
    /// The lock on a file of SQLite, as long as this lives.
    _only: Option<Arc<File>>,
}

/// A transaction: what is written in it is there as a whole once it is committed, and not at all otherwise.
pub(crate) type Writing = Transaction<'static, Any>;

impl Store {
    /// Opens `postgres://…`, or the file of that name, which is made if it is not there; brings its tables up to date.
    pub(crate) async fn open(database: &str) -> std::result::Result<Self, String> {
        install_default_drivers();
        let is_server = database.starts_with("postgres://") || database.starts_with("postgresql://");
        let mut options = AnyPoolOptions::new().acquire_timeout(PATIENCE).max_connections(CONNECTIONS);
        let mut only = None;
        let url = if is_server {
            database.to_owned()
        } else {
            only = Some(Arc::new(only_here(database)?));
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
        Ok(Self { pool, _only: only })
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

/// Makes the file of a database with a mode that only its user can read (those that SQLite puts beside it get the same),
/// and locks it for this process until it ends: each has an edge of its own, and what one writes the other's never tells.
/// The lock is flock's and not of the kind that SQLite takes, so programs that read the file still can.
fn only_here(path: &str) -> std::result::Result<File, String> {
    let told = |error: std::io::Error| format!("{path} cannot be opened: {error}");
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(told)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(format!(
            "{path} is in use by another fantail-chat: end that one, or name another file; several processes share a \
             PostgreSQL (docs/chat.md)"
        )),
        Err(TryLockError::Error(error)) => Err(told(error)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_is_no_mistake_of_ours() {
        // Busy, a snapshot that is too old, a write and a sync that failed, full; of PostgreSQL a deadlock.
        for code in ["5", "517", "778", "1034", "13", "40P01", "57P01", "08006"] {
            assert!(passes(code), "{code}");
        }
        for code in ["1", "19", "1555", "2067", "23505", "42P01", ""] {
            assert!(!passes(code), "{code}");
        }
    }

    #[tokio::test]
    async fn another_password_lets_nobody_in_who_has_shown_the_old_one() {
        let path = std::env::temp_dir().join(format!("fantail-chat-store-{}.db", random::id()));
        let store = Store::open(path.to_str().unwrap()).await.unwrap();
        let mut person = store.add_person("alice", "allce", "old").await.unwrap().unwrap();
        assert!(store.add_session(&person).await.unwrap().is_some());
        // In between the password that was shown was found right.
        assert!(store.set_password(&person.id, "old", "new").await.unwrap());
        assert!(store.add_session(&person).await.unwrap().is_none());
        person.password = "new".to_owned();
        assert!(store.add_session(&person).await.unwrap().is_some());
        gone(&store, &path).await;
    }

    #[tokio::test]
    async fn an_account_goes_as_a_whole_or_not_at_all() {
        let path = std::env::temp_dir().join(format!("fantail-chat-store-{}.db", random::id()));
        let store = Store::open(path.to_str().unwrap()).await.unwrap();
        let alice = store.add_person("alice", "allce", "old").await.unwrap().unwrap();
        let bob = store.add_person("bob", "bob", "bob").await.unwrap().unwrap();
        let room = store.add_room(&alice.id, "a room", "a room", true).await.unwrap().unwrap();
        for person in [&alice, &bob] {
            store.join(&room, &person.id).await.unwrap().unwrap();
            store.join(rooms::LOBBY, &person.id).await.unwrap().unwrap();
        }
        assert!(store.set_password(&alice.id, "old", "new").await.unwrap());
        // Its password has been changed since it was shown: nothing has been done.
        assert!(!store.delete_person(&alice).await.unwrap());
        assert_eq!(store.rooms(&alice.id).await.unwrap().len(), 2);
        let page = store.changes(&room, &bob.id, 0).await.unwrap().unwrap();
        assert_eq!(page.messages.len(), 2, "made and joined");
        let alice = people::Person { password: "new".to_owned(), ..alice };
        assert!(store.delete_person(&alice).await.unwrap());
        assert!(store.rooms(&alice.id).await.unwrap().is_empty());
        let told = store.rooms(&bob.id).await.unwrap();
        assert!(told.iter().all(|room| room["role"] == "owner"), "{told:?}");
        let page = store.changes(&room, &bob.id, page.change).await.unwrap().unwrap();
        let kinds: Vec<_> = page.messages.iter().map(|message| message["kind"].clone()).collect();
        assert_eq!(kinds, ["left", "owner"]);
        gone(&store, &path).await;
    }

    async fn gone(store: &Store, path: &std::path::Path) {
        store.pool.close().await;
        for end in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{end}", path.display()));
        }
    }
}
