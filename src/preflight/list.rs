//! The list of kernel settings: `sysctl/fantail.conf`, built into the program and read with its comments. Pure.
//!
//! sysctl(8) and the scripts read the same file; what a number of connections needs of a setting stands in its
//! comments, so that there is one list and not two.

/// The list as it was when the program was built.
const EMBEDDED: &str = include_str!("../../sysctl/fantail.conf");

/// One kernel setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name, with dots.
    pub key: String,
    /// The numbers of the list.
    pub values: Vec<u64>,
    /// Whether the list sets it, or only tells about it.
    pub active: bool,
    /// What it does to very many connections.
    pub why: String,
    /// What Linux takes without it.
    pub default: String,
    /// What a larger value costs.
    pub cost: String,
    /// Connections from which it can matter.
    pub from: u64,
    /// What N connections need of it.
    pub needs: Needs,
    /// What happens below that.
    pub effect: Effect,
    /// Whether a container has its own.
    pub scope: Scope,
}

/// What N connections need of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// One formula for each of its numbers.
    Formulas(Vec<Formula>),
    /// The open files of one event loop's table.
    Table,
    /// The key `server.backlog`.
    Backlog,
    /// A range of that many ports.
    Ports,
    /// The list's value, whatever N is.
    Value,
    /// The list's first two numbers are a bound: more is too much.
    Most,
}

/// N × `times` ÷ `over` + `plus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formula {
    times: u64,
    over: u64,
    plus: u64,
}

/// What happens when a setting is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Connections are refused or lost.
    Binds,
    /// Something suffers, but N connections are held.
    Slows,
    /// Only a load generator on this machine is hit.
    Generator,
}

/// For whom a setting is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The whole machine: a container can't set it.
    Machine,
    /// Each network namespace: a container has its own.
    Namespace,
}

impl Formula {
    /// What `connections` need.
    #[must_use]
    pub fn of(self, connections: u64) -> u64 {
        connections.saturating_mul(self.times).div_ceil(self.over).saturating_add(self.plus)
    }

    /// Reads `N`, `2N`, `3N/4`, `N + 10000`.
    fn parse(text: &str) -> Option<Self> {
        let (scaled, plus) = match text.split_once('+') {
            Some((scaled, plus)) => (scaled.trim(), plus.trim().parse().ok()?),
            None => (text.trim(), 0),
        };
        let (times, over) = scaled.split_once('N')?;
        let times = if times.is_empty() { 1 } else { times.parse().ok()? };
        let over = match over.strip_prefix('/') {
            Some(over) => over.parse().ok().filter(|over| *over > 0)?,
            None if over.is_empty() => 1,
            None => return None,
        };
        Some(Self { times, over, plus })
    }
}

/// The built-in list.
///
/// # Panics
/// Never: a test reads the same text.
#[must_use]
pub fn embedded() -> Vec<Setting> {
    parse(EMBEDDED).expect("sysctl/fantail.conf is well-formed")
}

/// Reads a list; the error names the line.
pub(super) fn parse(text: &str) -> Result<Vec<Setting>, String> {
    let mut settings = Vec::new();
    let mut notes: Vec<(&str, String)> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let at = |problem: &str| format!("line {}: {problem}", index + 1);
        if let Some(note) = line.strip_prefix("#:") {
            let (name, value) = note.trim().split_once(' ').ok_or_else(|| at("a note needs a text"))?;
            match notes.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = format!("{known} {}", value.trim()),
                None => notes.push((name, value.trim().to_owned())),
            }
        } else if line.starts_with("# ") || line == "#" || line.is_empty() {
            if !notes.is_empty() {
                return Err(at("notes without a setting"));
            }
        } else {
            settings.push(setting(line, &std::mem::take(&mut notes)).map_err(|problem| at(&problem))?);
        }
    }
    Ok(settings)
}

fn setting(line: &str, notes: &[(&str, String)]) -> Result<Setting, String> {
    let (line, active) = line.strip_prefix('#').map_or((line, true), |rest| (rest, false));
    let line = line.strip_prefix('-').unwrap_or(line);
    let (key, values) = line.split_once(" = ").ok_or("expects KEY = VALUE")?;
    let values = numbers(values).filter(|values| !values.is_empty()).ok_or("expects numbers")?;
    let note = |name: &str| {
        let found = notes.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.clone()).ok_or_else(|| format!("{key} has no note `{name}`"))
    };
    let needs = needs(&note("needs")?).ok_or("a need that is not understood")?;
    if let Needs::Formulas(formulas) = &needs
        && formulas.len() != values.len()
    {
        return Err("expects one formula for each number".to_owned());
    }
    Ok(Setting {
        key: key.to_owned(),
        active,
        why: note("why")?,
        default: note("default")?,
        cost: note("cost")?,
        from: note("from")?.parse().map_err(|_| "`from` expects a number")?,
        needs,
        effect: match note("effect")?.as_str() {
            "binds" => Effect::Binds,
            "slows" => Effect::Slows,
            "generator" => Effect::Generator,
            _ => return Err("`effect` expects binds, slows or generator".to_owned()),
        },
        scope: match note("scope")?.as_str() {
            "machine" => Scope::Machine,
            "namespace" => Scope::Namespace,
            _ => return Err("`scope` expects machine or namespace".to_owned()),
        },
        values,
    })
}

fn needs(text: &str) -> Option<Needs> {
    Some(match text {
        "table" => Needs::Table,
        "backlog" => Needs::Backlog,
        "ports" => Needs::Ports,
        "value" => Needs::Value,
        "most" => Needs::Most,
        formulas => Needs::Formulas(formulas.split(',').map(Formula::parse).collect::<Option<_>>()?),
    })
}

/// Numbers between spaces and tabs, as procfs writes them.
pub(super) fn numbers(text: &str) -> Option<Vec<u64>> {
    // "No limit" is -1 in some of the kernel's files.
    let number = |word: &str| if word == "-1" { Some(u64::MAX) } else { word.parse().ok() };
    text.split_whitespace().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_list_is_whole() {
        let list = embedded();
        let keys: Vec<_> = list.iter().map(|setting| setting.key.as_str()).collect();
        for key in [
            "fs.file-max",
            "fs.nr_open",
            "fs.epoll.max_user_watches",
            "net.core.somaxconn",
            "net.ipv4.tcp_max_syn_backlog",
            "net.ipv4.ip_local_port_range",
            "net.ipv4.tcp_mem",
            "net.ipv4.tcp_rmem",
            "net.ipv4.tcp_wmem",
            "net.ipv4.tcp_tw_reuse",
            "net.ipv4.tcp_migrate_req",
            "net.netfilter.nf_conntrack_max",
        ] {
            assert!(keys.contains(&key), "{key} is missing");
        }
        let mut unique = keys.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), keys.len(), "a setting twice");
    }

    /// The values of the list are enough for what its head promises.
    #[test]
    fn the_values_suit_a_million() {
        for setting in embedded() {
            if let Needs::Formulas(formulas) = &setting.needs {
                for (formula, value) in formulas.iter().zip(&setting.values) {
                    assert!(formula.of(1_000_000) <= *value, "{}: {}", setting.key, formula.of(1_000_000));
                }
            }
        }
    }

    #[test]
    fn formulas_are_read() {
        let of = |text: &str| Formula::parse(text).map(|formula| formula.of(1_001));
        assert_eq!(of("N"), Some(1_001));
        assert_eq!(of(" 2N "), Some(2_002));
        assert_eq!(of("3N/4"), Some(751));
        assert_eq!(of("N + 10"), Some(1_011));
        for wrong in ["", "4", "N/0", "N*2", "xN", "N + x"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let notes =
            "#: why w\n#: default d\n#: cost c\n#: from 1\n#: needs N\n#: effect binds\n#: scope machine\n";
        let good = format!("{notes}-a.b = 1\n");
        let read = parse(&good).unwrap();
        assert_eq!((read[0].key.as_str(), read[0].active), ("a.b", true));
        assert!(!parse(&format!("{notes}#a.b = 1\n")).unwrap()[0].active);
        for (text, problem) in [
            (format!("{notes}a.b = 1 2\n"), "line 8: expects one formula"),
            (format!("{notes}a.b = x\n"), "line 8: expects numbers"),
            (format!("{notes}\na.b = 1\n"), "line 8: notes without"),
            ("a.b = 1\n".to_owned(), "line 1: a.b has no note `needs`"),
            (good.replace("needs N", "needs M"), "line 8: a need"),
            (good.replace("binds", "bends"), "line 8: `effect`"),
            (good.replace("machine", "moon"), "line 8: `scope`"),
            (good.replace("from 1", "from x"), "line 8: `from`"),
        ] {
            let said = parse(&text).unwrap_err();
            assert!(said.starts_with(problem), "{said}");
        }
    }

    #[test]
    fn procfs_numbers_are_read() {
        assert_eq!(numbers("32768\t60999\n"), Some(vec![32_768, 60_999]));
        assert_eq!(numbers("-1\n"), Some(vec![u64::MAX]));
        assert_eq!(numbers("max"), None);
    }
}
