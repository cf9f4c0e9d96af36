//! Devices: the public keys with which private messages are encrypted for somebody's browsers. What belongs to them never
//! leaves those. Owns no trust: whoever encrypts decides which of these are theirs.

use serde_json::{Value, json};

use super::messages::Answer;
use super::outbox::tell;
use super::rooms::Refusal;
use super::{Result, Row, Store, Writing, now_ms};

/// Devices of one person: a message is encrypted for each.
pub(crate) const DEVICES_MAX: i64 = 8;
/// Removed devices of one person that are remembered, so that none of them comes back.
const REMOVED_MAX: i64 = 256;
/// Who is told at once that somebody's devices are others; everybody else finds out when they write.
const TOLD_MAX: i64 = 200;

impl Store {
    /// Adds a device, or does nothing if it is there. `id` is made of the key, so nobody has another's. One that was removed
    /// is refused: whoever still has its key must not be believed again.
    pub(crate) async fn add_device(&self, person: &str, id: &str, key: &str, name: &str) -> Answer<()> {
        let mut writing = self.begin().await?;
        // One at a time of each person, so that the count is right.
        let lock = sqlx::query("UPDATE people SET password = password WHERE id = $1").bind(person);
        if lock.execute(&mut *writing).await?.rows_affected() == 0 {
            return Ok(Err(Refusal::NoPerson));
        }
        let row = sqlx::query("SELECT person FROM devices WHERE id = $1").bind(id);
        if let Some(row) = row.fetch_optional(&mut *writing).await? {
            let is_own = row.try_get::<String, _>("person")? == person;
            return Ok(if is_own { Ok(()) } else { Err(Refusal::DeviceTaken) });
        }
        let removed = sqlx::query("SELECT id FROM removed_devices WHERE id = $1").bind(id);
        if removed.fetch_optional(&mut *writing).await?.is_some() {
            return Ok(Err(Refusal::DeviceTaken));
        }
        let count = sqlx::query("SELECT COUNT(*) AS devices FROM devices WHERE person = $1").bind(person);
        if count.fetch_one(&mut *writing).await?.try_get::<i64, _>("devices")? >= DEVICES_MAX {
            return Ok(Err(Refusal::TooManyDevices));
        }
        let insert = sqlx::query("INSERT INTO devices VALUES ($1, $2, $3, $4, $5)");
        let query = insert.bind(id).bind(person).bind(key).bind(name).bind(now_ms());
        query.execute(&mut *writing).await?;
        tell_of_devices(&mut writing, person).await?;
        writing.commit().await?;
        Ok(Ok(()))
    }

    /// Takes a device of somebody's away: nothing is encrypted for it any more.
    pub(crate) async fn remove_device(&self, person: &str, id: &str) -> Answer<()> {
        let mut writing = self.begin().await?;
        let query = sqlx::query("DELETE FROM devices WHERE id = $1 AND person = $2").bind(id).bind(person);
        if query.execute(&mut *writing).await?.rows_affected() == 0 {
            return Ok(Err(Refusal::NoDevice));
        }
        let insert = sqlx::query("INSERT INTO removed_devices VALUES ($1, $2, $3) ON CONFLICT DO NOTHING");
        insert.bind(id).bind(person).bind(now_ms()).execute(&mut *writing).await?;
        let old = "DELETE FROM removed_devices WHERE person = $1 AND id NOT IN
            (SELECT id FROM removed_devices WHERE person = $1 ORDER BY removed DESC, id LIMIT $2)";
        sqlx::query(old).bind(person).bind(REMOVED_MAX).execute(&mut *writing).await?;
        tell_of_devices(&mut writing, person).await?;
        writing.commit().await?;
        Ok(Ok(()))
    }

    /// Somebody's devices, the first first.
    pub(crate) async fn devices(&self, person: &str) -> Result<Vec<Value>> {
        let query =
            sqlx::query("SELECT id, key, name, made FROM devices WHERE person = $1 ORDER BY made, id");
        let rows = query.bind(person).fetch_all(&self.pool).await?;
        let one = |row: &sqlx::any::AnyRow| -> Result<Value> {
            let text = |name: &str| -> Result<String> { Ok(row.try_get(name)?) };
            let made: i64 = row.try_get("made")?;
            Ok(json!({"id": text("id")?, "key": text("key")?, "name": text("name")?, "made": made}))
        };
        rows.iter().map(one).collect()
    }
}

/// The devices of two, by their names, and whose the named one is with its key, as of this transaction.
pub(super) async fn devices_of(
    writing: &mut Writing,
    one: &str,
    other: &str,
) -> Result<Vec<(String, String, String)>> {
    let query = "SELECT id, person, key FROM devices WHERE person = $1 OR person = $2 ORDER BY id";
    let rows = sqlx::query(query).bind(one).bind(other).fetch_all(&mut **writing).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("person")?, row.try_get("key")?))).collect()
}

async fn tell_of_devices(writing: &mut Writing, person: &str) -> Result<()> {
    let payload = json!({"devices": {"person": person}}).to_string();
    tell(writing, &format!("people/{person}"), now_ms(), 0, &payload).await?;
    tell_partners(writing, person, &payload).await
}

/// Tells those something who have a conversation with somebody: with whom there was something last.
pub(super) async fn tell_partners(writing: &mut Writing, person: &str, payload: &str) -> Result<()> {
    let query = "SELECT p.other FROM partners p JOIN conversations c ON c.id = p.conversation
                 WHERE p.person = $1 ORDER BY c.moved DESC, c.id LIMIT $2";
    let rows = sqlx::query(query).bind(person).bind(TOLD_MAX).fetch_all(&mut **writing).await?;
    for row in rows {
        let other: String = row.try_get("other")?;
        tell(writing, &format!("people/{other}"), now_ms(), 0, payload).await?;
    }
    Ok(())
}
