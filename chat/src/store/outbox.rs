//! What is written and not yet told to the edge: messages to publish, tokens to take back. Both are written in the
//! transaction of what they tell of, and go when the edge has them.

use super::{Result, Row, Store, Writing, now};
use crate::edge::LIVES_SECONDS;
use crate::random;

/// A message that waits to be published.
pub(crate) struct Waiting {
    pub(crate) id: String,
    pub(crate) topic: String,
    pub(crate) payload: String,
}

impl Store {
    /// The next to be published, each topic's in order.
    pub(crate) async fn waiting(&self, most: i64) -> Result<Vec<Waiting>> {
        let query = sqlx::query("SELECT id, topic, payload FROM outbox ORDER BY topic, change, id LIMIT $1")
            .bind(most);
        let rows = query.fetch_all(&self.pool).await?;
        let one = |row: &sqlx::any::AnyRow| {
            Ok(Waiting {
                id: row.try_get("id")?,
                topic: row.try_get("topic")?,
                payload: row.try_get("payload")?,
            })
        };
        rows.iter().map(one).collect()
    }

    /// These have been published.
    pub(crate) async fn published(&self, ids: &[String]) -> Result<()> {
        let mut writing = self.begin().await?;
        for id in ids {
            sqlx::query("DELETE FROM outbox WHERE id = $1").bind(id).execute(&mut *writing).await?;
        }
        writing.commit().await?;
        Ok(())
    }

    /// Whose tokens are to be taken back. With `all` also those that an edge knew which has forgotten.
    pub(crate) async fn revocations(&self, all: bool) -> Result<Vec<(String, String)>> {
        let mut writing = self.begin().await?;
        // Tokens that were issued before have ended by themselves.
        let old = now() - 2 * LIVES_SECONDS;
        sqlx::query("DELETE FROM revocations WHERE done > 0 AND done < $1")
            .bind(old)
            .execute(&mut *writing)
            .await?;
        let query = sqlx::query("SELECT id, person FROM revocations WHERE done = 0 OR $1 = 1 ORDER BY made");
        let rows = query.bind(i64::from(all)).fetch_all(&mut *writing).await?;
        writing.commit().await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("person")?))).collect()
    }

    /// The edge has taken these back, at `when`.
    pub(crate) async fn revoked(&self, id: &str, when: i64) -> Result<()> {
        let query = sqlx::query("UPDATE revocations SET done = $1 WHERE id = $2").bind(when).bind(id);
        query.execute(&self.pool).await?;
        Ok(())
    }

    /// When somebody's tokens were last taken back, in seconds since 1970, 0 for never; `None` if that is still to be
    /// done, and a token that was made now would go with the others.
    pub(crate) async fn last_revoked(&self, person: &str) -> Result<Option<i64>> {
        let query = "SELECT COALESCE(MAX(done), 0) AS done, COALESCE(MIN(done), 1) AS first
                     FROM revocations WHERE person = $1";
        let row = sqlx::query(query).bind(person).fetch_one(&self.pool).await?;
        let (done, first): (i64, i64) = (row.try_get("done")?, row.try_get("first")?);
        Ok((first > 0).then_some(done))
    }
}

/// Puts a message for a topic's subscribers down, with what the transaction writes. `change` is its place among those
/// of its topic, and `seq` which message of the room it tells of.
pub(super) async fn tell(
    writing: &mut Writing,
    topic: &str,
    change: i64,
    seq: i64,
    payload: &str,
) -> Result<()> {
    let query = sqlx::query("INSERT INTO outbox VALUES ($1, $2, $3, $4, $5)");
    let query = query.bind(random::id()).bind(topic).bind(change).bind(seq).bind(payload);
    query.execute(&mut **writing).await?;
    Ok(())
}

/// Tells somebody's pages that their rooms are others now.
pub(super) async fn tell_person(writing: &mut Writing, person: &str) -> Result<()> {
    tell(writing, &format!("people/{person}"), super::now_ms(), 0, r#"{"rooms":"changed"}"#).await
}
