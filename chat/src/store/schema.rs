//! Tables, as steps that are taken once and in order. A step that was released is never changed: the next one is added.

use sqlx::{AnyPool, Executor, Row};

use super::Result;

/// Only what SQLite and PostgreSQL both understand. Names of people and rooms are random, so there are no counters that
/// the two would make in different ways; truth is 0 or 1, times are milliseconds since 1970.
const STEPS: [&str; 4] = [
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL);
     CREATE TABLE people (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL UNIQUE, password TEXT NOT NULL,
        created BIGINT NOT NULL);
     CREATE TABLE sessions (
        hash TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE, expires BIGINT NOT NULL);
     CREATE INDEX sessions_of_person ON sessions(person);
     CREATE TABLE rooms (
        id TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL UNIQUE, is_open BIGINT NOT NULL,
        change BIGINT NOT NULL, newest BIGINT NOT NULL, created BIGINT NOT NULL);
     CREATE TABLE members (
        room TEXT NOT NULL REFERENCES rooms(id) ON DELETE CASCADE,
        person TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE,
        role TEXT NOT NULL, seen BIGINT NOT NULL, since BIGINT NOT NULL, PRIMARY KEY (room, person));
     CREATE INDEX members_of_person ON members(person);
     CREATE TABLE messages (
        room TEXT NOT NULL REFERENCES rooms(id) ON DELETE CASCADE, seq BIGINT NOT NULL, change BIGINT NOT NULL,
        kind TEXT NOT NULL, author TEXT REFERENCES people(id) ON DELETE SET NULL, body TEXT NOT NULL,
        client_id TEXT NOT NULL, sent BIGINT NOT NULL, edited BIGINT NOT NULL, deleted BIGINT NOT NULL,
        PRIMARY KEY (room, seq), UNIQUE (author, client_id));
     CREATE INDEX messages_by_change ON messages(room, change);
     CREATE TABLE outbox (
        id TEXT PRIMARY KEY, topic TEXT NOT NULL, change BIGINT NOT NULL, seq BIGINT NOT NULL, payload TEXT NOT NULL);
     CREATE INDEX outbox_in_order ON outbox(topic, change);
     CREATE TABLE revocations (
        id TEXT PRIMARY KEY, person TEXT NOT NULL, made BIGINT NOT NULL, done BIGINT NOT NULL);
     CREATE INDEX revocations_of_person ON revocations(person);
     INSERT INTO rooms VALUES ('lobby', 'Lobby', 'llobby', 1, 0, 0, 0)",
    // As names::key makes it, so that no other room is called like the lobby. One that is already keeps its name.
    "UPDATE rooms SET key = id WHERE key = 'lobby' AND id <> 'lobby';
     UPDATE rooms SET key = 'lobby' WHERE id = 'lobby'",
    // Of a conversation stays which two have had it; names and devices go with accounts.
    "CREATE TABLE devices (
        id TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE, key TEXT NOT NULL,
        name TEXT NOT NULL, made BIGINT NOT NULL);
     CREATE INDEX devices_of_person ON devices(person);
     CREATE TABLE conversations (
        id TEXT PRIMARY KEY, pair TEXT NOT NULL UNIQUE, change BIGINT NOT NULL, newest BIGINT NOT NULL,
        moved BIGINT NOT NULL);
     CREATE TABLE partners (
        conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
        person TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE, other TEXT NOT NULL,
        begun BIGINT NOT NULL, seen BIGINT NOT NULL, PRIMARY KEY (conversation, person), UNIQUE (person, other));
     CREATE TABLE private_messages (
        conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE, seq BIGINT NOT NULL,
        change BIGINT NOT NULL, author TEXT NOT NULL, envelope TEXT NOT NULL, client_id TEXT NOT NULL,
        sent BIGINT NOT NULL, deleted BIGINT NOT NULL, PRIMARY KEY (conversation, seq), UNIQUE (author, client_id));
     CREATE INDEX private_messages_by_change ON private_messages(conversation, change);
     CREATE TABLE blocks (
        person TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE,
        blocked TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE, PRIMARY KEY (person, blocked))",
    // A key that was taken away from an account does not come back.
    "CREATE TABLE removed_devices (
        id TEXT PRIMARY KEY, person TEXT NOT NULL REFERENCES people(id) ON DELETE CASCADE, removed BIGINT NOT NULL);
     CREATE INDEX removed_devices_of_person ON removed_devices(person, removed)",
];

/// A number for PostgreSQL's advisory lock: two that start at once take the steps one after the other.
const LOCK: i64 = 0x0066_616e_7461_696c;

/// Takes the steps that this database has not had.
pub(super) async fn migrate(pool: &AnyPool) -> Result<()> {
    let mut writing = pool.begin().await?;
    let is_server = writing.backend_name() == "PostgreSQL";
    if is_server {
        sqlx::query("SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)")
            .bind(LOCK)
            .execute(&mut *writing)
            .await?;
    }
    writing.execute("CREATE TABLE IF NOT EXISTS steps (step BIGINT PRIMARY KEY)").await?;
    let row = sqlx::query("SELECT COUNT(*) AS taken FROM steps").fetch_one(&mut *writing).await?;
    let taken: i64 = row.try_get("taken")?;
    if usize::try_from(taken).is_ok_and(|taken| taken > STEPS.len()) {
        let told = format!("they are of a later version: {taken} steps, this one knows {}", STEPS.len());
        return Err(super::Error::Broken(told));
    }
    for (step, text) in STEPS.iter().enumerate().skip(usize::try_from(taken).unwrap_or_default()) {
        for statement in text.split(';') {
            writing.execute(statement.trim()).await?;
        }
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        sqlx::query("INSERT INTO steps VALUES ($1)").bind(step).execute(&mut *writing).await?;
    }
    writing.commit().await?;
    Ok(())
}
