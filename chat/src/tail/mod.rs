//! `fantail-chat tail ROOM`: a room on a terminal. Logs in as a page does, prints what is there and then what comes, through
//! restarts of edge and application, each message once. What the edge says is a hint; what is printed is counted by the
//! room's changes, and behind a hole or a break all that has changed is asked for. Blocks; nothing of the server runs beside.

mod client;
mod lines;
mod stream;

use std::collections::BTreeSet;
use std::io::{IsTerminal, stdin};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use fantail::sys::signals;
use serde_json::Value;

use client::{Client, Trouble};
use stream::Stream;

pub(crate) const EXAMPLES: &str = "\
A message is one line, and its further lines begin with two spaces. What is changed later is a line more. Remarks about the
connection go to standard error. Ctrl-C and SIGTERM end it, and its session with it.

The password is that of FANTAIL_CHAT_PASSWORD or the first line of --password-file; else it is asked for on the terminal.

Exit codes: 0 told to end, or nobody reads any more; 1 the application can't be reached at first, or said no; 2 wrong usage;
3 wrong name or password, or the session was ended; 4 not in this room, or not any more.

Examples:
  fantail-chat tail --user alice Lobby
      Ask for alice's password; print the last ten messages, and what comes.
  fantail-chat tail --url https://chat.example --user bot --password-file bot.password --json Lobby | jq -r .text
      What is said, out of messages as the application's interface has them.
  fantail-chat tail --user alice --history 0 --times Lobby >> lobby.log
      Write down what comes, with times.";

/// Flags of `tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The room, by its name or what stands behind the # of its address
    #[arg(value_name = "ROOM")]
    room: String,
    /// Where the application is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8090/")]
    url: String,
    /// Who looks; asked for on a terminal
    #[arg(long, value_name = "NAME", env = "FANTAIL_CHAT_USER")]
    user: Option<String>,
    /// File whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Messages that are there already, of those that a page begins with
    #[arg(long, value_name = "N", default_value_t = 10)]
    history: usize,
    /// Each message as a line of JSON
    #[arg(long)]
    json: bool,
    /// When a message was sent (UTC) in front of it
    #[arg(long, conflicts_with = "json")]
    times: bool,
}

/// Where the password is, if it is in no file. Not an argument: other users of the machine see those.
const PASSWORD: &str = "FANTAIL_CHAT_PASSWORD";

/// Between two tries: at first, and at most.
const WAITS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// A connection that lived so long begins with the first wait again.
const LIVED: Duration = Duration::from_secs(5);

/// Why it ends.
enum End {
    /// Nobody reads what it prints.
    Unread,
    Failed(u8, String),
}

impl From<Trouble> for End {
    fn from(trouble: Trouble) -> Self {
        let code = match trouble.code.as_str() {
            "wrong_password" | "logged_out" => 3,
            "not_member" | "banned" | "not_found" => 4,
            _ => 1,
        };
        Self::Failed(code, trouble.message)
    }
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Unread,
            _ => Self::Failed(1, format!("standard output: {error}")),
        }
    }
}

/// Runs it to its end.
pub(crate) fn main(arguments: TailArgs) -> ExitCode {
    match run(arguments) {
        Ok(()) | Err(End::Unread) => ExitCode::SUCCESS,
        Err(End::Failed(code, message)) => {
            eprintln!("fantail-chat: {message}");
            ExitCode::from(code)
        }
    }
}

fn run(arguments: TailArgs) -> Result<(), End> {
    let misused = |why: String| End::Failed(2, why);
    let user = match arguments.user {
        Some(user) => user,
        None => asked_for("Name: ").map_err(misused)?,
    };
    let password = password(arguments.password_file.as_deref()).map_err(misused)?;
    let mut client = Client::new(&arguments.url).map_err(misused)?;
    // Behind what a terminal is asked, and before the first thread.
    signals::block_all().map_err(|error| End::Failed(1, format!("signals cannot be taken: {error}")))?;
    let me = client.log_in(&user, &password)?;
    let client = Arc::new(client);
    end_with_a_signal(Arc::clone(&client));
    let style = lines::Style { is_json: arguments.json, has_times: arguments.times };
    let outcome = follow(&client, &me, &arguments.room, arguments.history, style);
    client.log_out();
    outcome
}

fn end_with_a_signal(client: Arc<Client>) {
    thread::spawn(move || {
        if signals::wait().is_ok() {
            client.log_out();
            std::process::exit(0);
        }
    });
}

fn follow(client: &Client, me: &Value, room: &str, history: usize, style: lines::Style) -> Result<(), End> {
    let room = room_of(me, room)?;
    let page = client.get(&format!("/rooms/{room}/messages"))?;
    let mut tail = Tail { client, room, style, change: 0, newest: 0, caught_up: BTreeSet::new() };
    tail.change = page["change"].as_i64().unwrap_or_default();
    let messages = list(&page);
    tail.newest = messages.last().map_or(0, number_of("seq"));
    for message in &messages[messages.len().saturating_sub(history)..] {
        tail.style.print(message, true)?;
    }
    tail.follow()
}

/// The id of a room that somebody is in.
fn room_of(me: &Value, wanted: &str) -> Result<String, End> {
    let rooms = me["rooms"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |room: &Value, name: &str| room[name].as_str().unwrap_or_default().to_owned();
    let is_in = |room: &&Value| room["role"] != "invited";
    let rooms: Vec<_> =
        rooms.iter().filter(is_in).map(|room| (text(room, "id"), text(room, "name"))).collect();
    let found = rooms.iter().find(|(id, _)| id == wanted);
    let found = found.or_else(|| rooms.iter().find(|(_, name)| name == wanted));
    let found = found.or_else(|| rooms.iter().find(|(_, name)| name.to_lowercase() == wanted.to_lowercase()));
    found.map(|(id, _)| id.clone()).ok_or_else(|| {
        let names: Vec<_> = rooms.iter().map(|(_, name)| lines::shown(name)).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        End::Failed(4, format!("you are in no room {}; your rooms: {names}", lines::shown(wanted)))
    })
}

fn list(page: &Value) -> &[Value] {
    page["messages"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn number_of(name: &str) -> impl Fn(&Value) -> i64 {
    move |message| message[name].as_i64().unwrap_or_default()
}

/// How far a room has been printed.
struct Tail<'a> {
    client: &'a Client,
    room: String,
    style: lines::Style,
    /// All up to this change.
    change: i64,
    /// All up to this message.
    newest: i64,
    /// What was printed beyond while changes were read, whose order is another.
    caught_up: BTreeSet<i64>,
}

impl Tail<'_> {
    fn follow(&mut self) -> Result<(), End> {
        let mut wait = WAITS.0;
        let mut is_away = false;
        loop {
            let start = Instant::now();
            match self.round(&mut is_away) {
                Err(Stop::End(end)) => return Err(end),
                Err(Stop::Break(why)) => {
                    if !is_away {
                        eprintln!("fantail-chat: {why}: trying again");
                    }
                    is_away = true;
                }
                // A stream ends with its token at the latest.
                Ok(()) => {}
            }
            wait = if start.elapsed() >= LIVED { WAITS.0 } else { (wait * 2).min(WAITS.1) };
            thread::sleep(wait);
        }
    }

    /// One connection, to its end.
    fn round(&mut self, is_away: &mut bool) -> Result<(), Stop> {
        let told = self.client.get("/edge")?;
        let text = |name: &str| told[name].as_str().unwrap_or_default();
        let stream = Stream::open(text("url"), text("token"), &format!("rooms/{}", self.room));
        // What comes from here on is in the stream, and everything before is asked for: without an edge as well, and who is
        // not in the room any more is told here.
        self.catch_up()?;
        let mut stream = stream.map_err(Stop::Break)?;
        if std::mem::take(is_away) {
            eprintln!("fantail-chat: connected again");
        }
        while let Some(message) = stream.next().map_err(Stop::Break)? {
            let change = number_of("change")(&message);
            if change > self.change + 1 {
                self.catch_up()?;
            } else if change == self.change + 1 {
                self.print(&message)?;
                self.newest = self.newest.max(number_of("seq")(&message));
                self.change = change;
            }
        }
        Ok(())
    }

    /// All that has changed, in the order of the last changes.
    fn catch_up(&mut self) -> Result<(), Stop> {
        loop {
            let path = format!("/rooms/{}/messages?after_change={}", self.room, self.change);
            let page = self.client.get(&path)?;
            for message in list(&page) {
                self.print(message)?;
                self.caught_up.insert(number_of("seq")(message));
                self.change = self.change.max(number_of("change")(message));
            }
            if page["more"] != true {
                self.change = self.change.max(number_of("change")(&page));
                // Of each message up to the newest one the last change is known now.
                self.newest = self.newest.max(self.caught_up.last().copied().unwrap_or_default());
                self.caught_up.clear();
                return Ok(());
            }
        }
    }

    fn print(&self, message: &Value) -> Result<(), Stop> {
        let seq = number_of("seq")(message);
        let is_new = seq > self.newest && !self.caught_up.contains(&seq);
        self.style.print(message, is_new).map_err(|error| Stop::End(error.into()))
    }
}

/// Why a connection is over.
enum Stop {
    /// This may work a little later.
    Break(String),
    End(End),
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        if trouble.passes { Self::Break(trouble.message) } else { Self::End(trouble.into()) }
    }
}

fn asked_for(what: &str) -> Result<String, String> {
    if !stdin().is_terminal() {
        return Err("who looks is said by --user or FANTAIL_CHAT_USER where there is no terminal".to_owned());
    }
    eprint!("{what}");
    let mut line = String::new();
    stdin().read_line(&mut line).map_err(|error| error.to_string())?;
    Ok(line.trim().to_owned())
}

fn password(file: Option<&std::path::Path>) -> Result<String, String> {
    if let Some(file) = file {
        let text = std::fs::read_to_string(file);
        let text = text.map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
        return Ok(text.lines().next().unwrap_or_default().to_owned());
    }
    if let Ok(password) = std::env::var(PASSWORD) {
        return Ok(password);
    }
    if !stdin().is_terminal() {
        return Err(format!("the password is in {PASSWORD} or --password-file where there is no terminal"));
    }
    rpassword::prompt_password("Password: ").map_err(|error| format!("no password: {error}"))
}
