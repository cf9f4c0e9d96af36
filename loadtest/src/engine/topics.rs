//! Which topics there are and who is subscribed to which, so that what each connection should get is known exactly.
//!
//! Nothing is kept for a connection: its topics follow from its number. Pure.

use std::borrow::Cow;

use super::vars::Vars;

/// Topics of one run; streams of neighbouring numbers tell their messages apart.
pub(crate) const TOPICS_MAX: u32 = 10_000_000;
/// Topics of one connection.
const PER_CONNECTION_MAX: u64 = 4_096;

/// What topics were asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// How many.
    pub(crate) count: Option<u32>,
    /// Connections in each.
    pub(crate) members: Option<u32>,
    /// The column of `--vars` that has a connection's topic.
    pub(crate) column: Option<String>,
    /// Texts by which messages are published. Where they and what subscribers say name the same columns of `--vars`,
    /// rows that have the same values there are one topic.
    pub(crate) published: Vec<String>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Topics {
    names: Names,
    connections: u64,
    membership: Membership,
}

#[derive(Debug)]
enum Names {
    One(String),
    Numbered(String),
    Listed(Vec<String>),
}

#[derive(Debug)]
enum Membership {
    /// Everybody is in the only one.
    All,
    /// Membership `k` of `count * members` is of topic `k / members` and of connection `k % connections`, so that no two
    /// connections have numbers of topics that differ by more than one.
    Spread { count: u32, members: u64 },
    /// By row of `--vars`, of which connections have one in turn.
    Rows(Vec<u32>),
}

impl Topics {
    /// One topic of this name, for everybody.
    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Self { names: Names::One(name.to_owned()), connections: 1, membership: Membership::All }
    }

    /// As wanted, for so many connections. `name` is new in every run.
    /// `shared` are the columns that subscribers and publisher name.
    pub(crate) fn new(
        wanted: &Wanted,
        name: String,
        connections: u64,
        vars: &Vars,
        shared: &[usize],
    ) -> Result<Self, String> {
        if let Some(column) = &wanted.column {
            if wanted.count.is_some() || wanted.members.is_some() {
                return Err("--topic-column: the file says how many topics there are: leave out --topics and --members".into());
            }
            let known = vars.names().iter().position(|name| name == column);
            let column =
                known.ok_or_else(|| format!("--topic-column {column}: --vars has no column of that name"))?;
            return Ok(Self::of_columns(&[column], connections, vars));
        }
        if !shared.is_empty() && wanted.count.is_none() && wanted.members.is_none() {
            return Ok(Self::of_columns(shared, connections, vars));
        }
        let count = match (wanted.count, wanted.members) {
            (None, None) => 1,
            (Some(count), _) => count,
            // As many as the connections fill.
            (None, Some(members)) => {
                u32::try_from(connections / u64::from(members)).unwrap_or(TOPICS_MAX).clamp(1, TOPICS_MAX)
            }
        };
        let members = wanted.members.map_or_else(|| connections.div_ceil(u64::from(count)), u64::from);
        if count == 1 && members >= connections {
            return Ok(Self { names: Names::One(name), connections, membership: Membership::All });
        }
        if members > connections {
            return Err(format!("--members {members}: there are only {connections} connections"));
        }
        let memberships = u64::from(count) * members;
        if memberships.div_ceil(connections) > PER_CONNECTION_MAX {
            return Err(format!(
                "{count} topics with {members} members each are more than {PER_CONNECTION_MAX} topics for each of {connections} connections"
            ));
        }
        if memberships < connections && wanted.members.is_some() {
            return Err(format!(
                "{count} topics with {members} members each leave some of {connections} connections without a topic: \
                 --connections {memberships} would do"
            ));
        }
        Ok(Self {
            names: Names::Numbered(name),
            connections,
            membership: Membership::Spread { count, members },
        })
    }

    fn of_columns(columns: &[usize], connections: u64, vars: &Vars) -> Self {
        let mut known = std::collections::HashMap::new();
        let (mut names, mut rows) = (Vec::new(), Vec::new());
        // Rows that no connection has are nobody's topics.
        for row in 0..vars.rows().min(connections) {
            let values: Vec<&str> = columns.iter().map(|column| vars.value(*column, row)).collect();
            let topic = *known.entry(values.clone()).or_insert_with(|| {
                names.push(values.join("/"));
                names.len() as u32 - 1
            });
            rows.push(topic);
        }
        Self { names: Names::Listed(names), connections, membership: Membership::Rows(rows) }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u32 {
        match (&self.membership, &self.names) {
            (Membership::Spread { count, .. }, _) => *count,
            (_, Names::Listed(names)) => names.len() as u32,
            _ => 1,
        }
    }

    /// The name of one.
    pub(crate) fn name(&self, topic: u32) -> Cow<'_, str> {
        match &self.names {
            Names::One(name) => Cow::Borrowed(name),
            Names::Numbered(name) => Cow::Owned(format!("{name}-{topic}")),
            Names::Listed(names) => Cow::Borrowed(names.get(topic as usize).map_or("", String::as_str)),
        }
    }

    /// The topics of a connection.
    pub(crate) fn of(&self, connection: u64) -> impl Iterator<Item = u32> + use<> {
        let (mut next, step, end, members) = match &self.membership {
            Membership::All => (0, 1, 1, 1),
            Membership::Spread { count, members } => {
                (connection, self.connections, u64::from(*count) * members, *members)
            }
            Membership::Rows(rows) => {
                let row = (connection % rows.len().max(1) as u64) as usize;
                let topic = u64::from(rows.get(row).copied().unwrap_or(0));
                (topic, 1, topic + 1, 1)
            }
        };
        std::iter::from_fn(move || {
            let topic = (next < end).then_some(next / members)?;
            next += step;
            u32::try_from(topic).ok()
        })
    }

    /// The most topics that a connection has.
    pub(crate) fn per_connection(&self) -> usize {
        match &self.membership {
            Membership::Spread { count, members } => {
                (u64::from(*count) * members).div_ceil(self.connections.max(1)) as usize
            }
            _ => 1,
        }
    }

    /// The place of a topic among those of a connection; `None` if it is none of its.
    #[inline]
    pub(crate) fn slot(&self, connection: u64, topic: u32) -> Option<usize> {
        match &self.membership {
            Membership::All => (topic == 0).then_some(0),
            Membership::Spread { members, .. } => {
                let first = u64::from(topic) * members;
                let turn = first % self.connections;
                let ahead =
                    if connection >= turn { connection - turn } else { connection + self.connections - turn };
                (ahead < *members).then(|| ((first + ahead) / self.connections) as usize)
            }
            Membership::Rows(_) => (self.of(connection).next() == Some(topic)).then_some(0),
        }
    }

    /// Connections that are in a topic.
    pub(crate) fn members(&self, topic: u32) -> u64 {
        match &self.membership {
            Membership::All => self.connections,
            Membership::Spread { members, .. } => *members,
            Membership::Rows(rows) => {
                let (all, rest) =
                    (self.connections / rows.len() as u64, self.connections % rows.len() as u64);
                let of = |rows: &[u32]| rows.iter().filter(|row| **row == topic).count() as u64;
                all * of(rows) + of(rows.get(..rest as usize).unwrap_or_default())
            }
        }
    }

    /// The first connection of a topic, by whose columns it is published to.
    pub(crate) fn first_member(&self, topic: u32) -> u64 {
        match &self.membership {
            Membership::All => 0,
            Membership::Spread { members, .. } => u64::from(topic) * members % self.connections.max(1),
            Membership::Rows(rows) => rows.iter().position(|row| *row == topic).unwrap_or(0) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(count: u32, members: u32, connections: u64) -> Topics {
        let wanted = Wanted { count: Some(count), members: Some(members), ..Wanted::default() };
        Topics::new(&wanted, "t".into(), connections, &Vars::default(), &[]).unwrap()
    }

    /// By looking at every connection.
    fn check(topics: &Topics, connections: u64) {
        let mut members = vec![0; topics.count() as usize];
        for connection in 0..connections {
            let mine: Vec<u32> = topics.of(connection).collect();
            assert!(mine.len() <= topics.per_connection());
            for (slot, topic) in mine.iter().enumerate() {
                assert_eq!(topics.slot(connection, *topic), Some(slot));
                members[*topic as usize] += 1;
            }
            let others = (0..topics.count()).filter(|topic| !mine.contains(topic));
            assert!(others.into_iter().all(|topic| topics.slot(connection, topic).is_none()));
        }
        for topic in 0..topics.count() {
            assert_eq!(topics.members(topic), members[topic as usize], "{topic} of {topics:?}");
            let first = topics.first_member(topic);
            assert!(topics.slot(first, topic).is_some(), "{topic} of {topics:?}");
        }
    }

    #[test]
    fn every_topic_has_its_members_and_every_connection_its_topics() {
        for (count, members, connections) in [
            (1, 3, 3),
            (4, 5, 20),
            (4, 5, 10),
            (10, 3, 7),
            (7, 7, 7),
            (100, 1, 10),
            (3, 2, 5),
            (5, 4, 19),
            (1000, 5, 1000),
        ] {
            let topics = spread(count, members, connections);
            assert_eq!(topics.count(), count);
            check(&topics, connections);
        }
    }

    #[test]
    fn without_members_connections_are_spread_evenly() {
        let wanted = Wanted { count: Some(4), ..Wanted::default() };
        let topics = Topics::new(&wanted, "t".into(), 10, &Vars::default(), &[]).unwrap();
        check(&topics, 10);
        assert_eq!((topics.name(3).as_ref(), topics.members(0), topics.per_connection()), ("t-3", 3, 2));
        let wanted = Wanted { members: Some(5), ..Wanted::default() };
        assert_eq!(Topics::new(&wanted, "t".into(), 20, &Vars::default(), &[]).unwrap().count(), 4);
        let one = Topics::new(&Wanted::default(), "t".into(), 10, &Vars::default(), &[]).unwrap();
        assert_eq!((one.count(), one.name(0).as_ref(), one.members(0)), (1, "t", 10));
        check(&one, 10);
    }

    #[test]
    fn a_column_names_them() {
        let vars = Vars::parse("user,room\na,red\nb,blue\nc,red\n").unwrap();
        let wanted = Wanted { column: Some("room".into()), ..Wanted::default() };
        for connections in [2, 3, 4, 10] {
            let topics = Topics::new(&wanted, "t".into(), connections, &vars, &[]).unwrap();
            check(&topics, connections);
            assert_eq!(
                (topics.count(), topics.name(0).as_ref(), topics.name(1).as_ref()),
                (2, "red", "blue")
            );
        }
        let two = Topics::new(&Wanted::default(), "t".into(), 4, &vars, &[0, 1]).unwrap();
        assert_eq!((two.count(), two.name(1).as_ref()), (3, "b/blue"));
        check(&two, 4);
        let wanted = Wanted { column: Some("hall".into()), ..Wanted::default() };
        assert!(Topics::new(&wanted, "t".into(), 4, &vars, &[]).unwrap_err().contains("--topic-column hall"));
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = |count, members, connections| {
            let wanted = Wanted { count, members, ..Wanted::default() };
            Topics::new(&wanted, "t".into(), connections, &Vars::default(), &[]).unwrap_err()
        };
        assert!(refused(Some(2), Some(11), 10).contains("only 10 connections"));
        assert!(refused(Some(2), Some(3), 10).contains("--connections 6"));
        assert!(refused(Some(1_000_000), Some(10), 10).contains("more than 4096 topics"));
    }
}
