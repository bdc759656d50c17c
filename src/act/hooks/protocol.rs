//! What daemon and helper say to each other: frames of a length (four bytes, little-endian) and as many bytes.
//!
//! A request is one line of JSON and, after its newline, the hook's standard input. A reply is JSON.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

/// The longest frame. A verdict on some thousand candidates has a megabyte.
const LONGEST: usize = 64 << 20;

/// Run this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Comes back in the reply.
    pub id: u64,
    /// The program and its arguments.
    pub exec: Vec<String>,
    /// How long it may take, microseconds.
    pub timeout_us: u64,
}

/// How a hook ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// By itself, with this exit status.
    Exit(i32),
    /// By this signal, which was not ours.
    Signal(i32),
    /// It was killed because its time was over.
    Deadline,
    /// It could not be started: an errno.
    NotStarted(i32),
}

/// It has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// That of the request.
    pub id: u64,
    /// How.
    pub ended: Ended,
    /// How long it ran, microseconds.
    pub took_us: u64,
    /// The begin of what it wrote to standard output and standard error.
    pub output: String,
    /// It wrote more than that.
    pub cut: bool,
}

fn write_frame(to: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).ok().filter(|_| length <= LONGEST).ok_or(io::ErrorKind::FileTooLarge)?;
    to.write_all(&length.to_le_bytes())?;
    parts.iter().try_for_each(|part| to.write_all(part))
}

/// Writes a request.
///
/// # Errors
/// As writing; also when it is too long.
pub fn write_request(to: &mut impl Write, request: &Request, input: &[u8]) -> io::Result<()> {
    let head = serde_json::to_vec(request)?;
    write_frame(to, &[&head, b"\n", input])
}

/// Takes a frame apart into the request and the hook's input.
///
/// # Errors
/// When it is none.
pub fn parse_request(frame: &[u8]) -> io::Result<(Request, Vec<u8>)> {
    let end = frame.iter().position(|byte| *byte == b'\n').ok_or(io::ErrorKind::InvalidData)?;
    let (head, input) = frame.split_at(end);
    Ok((serde_json::from_slice(head)?, input.get(1..).unwrap_or_default().to_vec()))
}

/// Writes a reply.
///
/// # Errors
/// As writing.
pub fn write_reply(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    write_frame(to, &[&serde_json::to_vec(reply)?])
}

/// What has been read and is not a whole frame yet.
#[derive(Debug, Default)]
pub struct Inbox(Vec<u8>);

impl Inbox {
    /// Reads once; whether the other end is still there. A socket that has nothing now is.
    ///
    /// # Errors
    /// As reading.
    pub fn fill(&mut self, from: &mut impl Read) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match from.read(&mut buffer) {
            Ok(0) => Ok(false),
            Ok(read) => {
                self.0.extend_from_slice(buffer.get(..read).unwrap_or_default());
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// When its length is beyond all that is sent here.
    pub fn take_frame(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(head) = self.0.first_chunk::<4>() else { return Ok(None) };
        let length = usize::try_from(u32::from_le_bytes(*head)).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if self.0.len() < 4 + length {
            return Ok(None);
        }
        let rest = self.0.split_off(4 + length);
        let mut frame = std::mem::replace(&mut self.0, rest);
        frame.drain(..4);
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let request = Request { id: 7, exec: vec!["/bin/x".into(), "a\nb".into()], timeout_us: 500_000 };
        let reply = Reply { id: 7, ended: Ended::Signal(11), took_us: 3, output: "x\ny".into(), cut: true };
        let mut bytes = Vec::new();
        write_request(&mut bytes, &request, b"{\"v\":1}\nmore").unwrap();
        write_reply(&mut bytes, &reply).unwrap();
        for piece in [1, 3, 1000] {
            let (mut inbox, mut frames) = (Inbox::default(), Vec::new());
            for mut part in bytes.chunks(piece) {
                assert!(inbox.fill(&mut part).unwrap());
                while let Some(frame) = inbox.take_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(parse_request(&frames[0]).unwrap(), (request.clone(), b"{\"v\":1}\nmore".to_vec()));
            assert_eq!(serde_json::from_slice::<Reply>(&frames[1]).unwrap(), reply);
            assert_eq!(frames.len(), 2);
        }
    }

    #[test]
    fn an_end_is_an_end_and_nonsense_is_an_error() {
        assert!(!Inbox::default().fill(&mut io::empty()).unwrap());
        let mut inbox = Inbox::default();
        inbox.fill(&mut &[0xff; 8][..]).unwrap();
        assert!(inbox.take_frame().is_err());
        assert!(parse_request(b"{}").is_err() && parse_request(b"{}\n").is_err());
    }
}
