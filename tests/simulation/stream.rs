//! What a peer reads that listens to `/sse`: chunks, lines, events.

use data_encoding::BASE64;

use super::presence::Known;

/// What is there of a stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The places of events, as they say.
    pub(crate) places: Vec<u64>,
    /// An unfinished line.
    line: Vec<u8>,
    binary: bool,
    /// The event tells of messages that don't come.
    gap: bool,
    /// The event tells who is there.
    presence: bool,
    /// What it knows of who is, if it has asked for that.
    pub(crate) known: Option<Known>,
    id: Option<u64>,
    data: Option<Vec<u8>>,
}

impl Stream {
    /// Of who asks who is there, too, or not.
    pub(crate) fn new(watches: bool) -> Self {
        Self { known: watches.then(Known::default), ..Self::default() }
    }

    /// Takes the chunks that are there to their ends, and the payloads of events in them.
    pub(crate) fn take(&mut self, bytes: &mut Vec<u8>, payloads: &mut Vec<Vec<u8>>) -> Result<(), String> {
        while let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") {
            let size =
                std::str::from_utf8(&bytes[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or("a chunk without a size")?;
            let (from, to) = (end + 2, end + 2 + size);
            if bytes.len() < to + 2 {
                return Ok(());
            }
            if &bytes[to..to + 2] != b"\r\n" {
                return Err("a chunk without an end".to_owned());
            }
            let chunk: Vec<u8> = bytes.drain(..to + 2).skip(from).take(size).collect();
            for byte in chunk {
                if byte == b'\n' {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(&line, payloads)?;
                } else {
                    self.line.push(byte);
                }
            }
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8], payloads: &mut Vec<Vec<u8>>) -> Result<(), String> {
        let text = String::from_utf8_lossy(line);
        match text.split_once(": ") {
            None if line.is_empty() => {
                let (binary, id) = (std::mem::take(&mut self.binary), self.id.take());
                // An event of nothing but its id is none.
                let Some(data) = self.data.take() else { return Ok(()) };
                if std::mem::take(&mut self.presence) {
                    let told = serde_json::from_slice(&data).map_err(|error| error.to_string())?;
                    return self.known.as_mut().ok_or("nobody has asked who is there")?.take(&told);
                }
                if std::mem::take(&mut self.gap) {
                    return Ok(());
                }
                let data =
                    if binary { BASE64.decode(&data).map_err(|error| error.to_string())? } else { data };
                self.places.push(id.ok_or("a message without a place")?);
                payloads.push(data);
            }
            Some(("event", "binary")) => self.binary = true,
            Some(("event", "gap")) => self.gap = true,
            Some(("event", "presence")) => self.presence = true,
            Some(("event", named)) if self.known.is_some() => self.binary = named.starts_with("binary:"),
            Some(("id", id)) => {
                let first = id.split(',').next().and_then(|first| first.split_once(':'));
                self.id = first.and_then(|(_, offset)| offset.parse().ok());
            }
            // No payload here has a line end.
            Some(("data", data)) => self.data = Some(data.as_bytes().to_vec()),
            Some(("retry" | "", _)) => {}
            None if text == ":" => {}
            _ => return Err(format!("a line of an event stream: {text}")),
        }
        Ok(())
    }
}
