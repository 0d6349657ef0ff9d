//! Frames and the messages in them.

use super::Choices;
use crate::wire::backend;
use crate::wire::frame::{Frame, FrameError, HEADER};
use crate::wire::frontend::{self, Bind, Execute, Named, Opening, Parse};

/// The largest frame that is accepted here, so that refusals are met as often as frames.
const LIMIT: usize = 512;

/// A stream of bytes gives the same frames however it is cut up, no reader panics, and what a reader
/// accepts is exactly the message: written again from what was read, it is the same bytes.
pub fn frames(data: &[u8]) {
    let mut choices = Choices::new(data);
    let cut = choices.take(4).to_vec();
    let stream = choices.rest();

    let whole = split(stream, &[]);
    assert_eq!(whole, split(stream, &cut), "another chunking, other frames");
    assert_eq!(whole, split(stream, &[1]), "byte by byte, other frames");
    for frame in &whole.0 {
        messages(frame);
    }
    // Bodies that no header was cut for.
    messages(&[b"Q\0\0\0\0", stream].concat());
    let _ = Opening::length(stream);
    let _ = Opening::read(stream);
}

/// The frames of a stream, and how it ended.
fn split(stream: &[u8], cuts: &[u8]) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut frames = Vec::new();
    let mut buffer: Vec<u8> = Vec::new();
    let mut at = 0;
    let mut cuts = cuts.iter().cycle();
    while at < stream.len() {
        let piece = cuts.next().map_or(stream.len(), |cut| usize::from(*cut).max(1));
        let end = (at + piece).min(stream.len());
        buffer.extend_from_slice(&stream[at..end]);
        at = end;
        loop {
            match Frame::first(&buffer, LIMIT) {
                Ok(Some(frame)) => {
                    assert_eq!(frame.tag, frame.bytes[0]);
                    assert_eq!(frame.body().len() + HEADER, frame.bytes.len());
                    frames.push(frame.bytes.to_vec());
                    let used = frame.bytes.len();
                    buffer.drain(..used);
                }
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
        // What waits for more is less than one frame, so a reader's memory is bounded by the limit.
        assert!(buffer.len() < LIMIT.max(HEADER));
    }
    (frames, None)
}

/// Every reader on one frame's body.
fn messages(frame: &[u8]) {
    let body = &frame[HEADER..];
    if let Ok(text) = frontend::query(body) {
        assert_eq!([text, b"\0"].concat(), body);
    }
    if let Ok(parse) = Parse::read(body) {
        let types: Vec<u8> = parse.types().flat_map(u32::to_be_bytes).collect();
        let count = (parse.types().len() as u16).to_be_bytes();
        let again = [parse.name, b"\0", parse.sql, b"\0", &count, &types].concat();
        assert_eq!(again, body, "a Parse says more than was read");
    }
    if let Ok(bind) = Bind::read(body) {
        assert_eq!(bind.values().count(), bind.len());
        let values: usize = bind.values().map(|(_, value)| 4 + value.map_or(0, <[u8]>::len)).sum();
        let least = bind.portal.len() + bind.statement.len() + 2 + 6 + values;
        assert!(least <= body.len());
        assert_eq!((body.len() - least) % 2, 0, "only format codes are left");
    }
    if let Ok(execute) = Execute::read(body) {
        assert_eq!([execute.portal, b"\0", &execute.rows.to_be_bytes()].concat(), body);
    }
    match Named::read(body) {
        Ok(Named::Statement(name)) => assert_eq!([b"S", name, b"\0"].concat(), body),
        Ok(Named::Portal(name)) => assert_eq!([b"P", name, b"\0"].concat(), body),
        Err(_) => {}
    }
    let _ = frontend::FunctionCall::read(body);
    let _ = backend::Fields::read(body);
    if let Ok((tag, _)) = backend::command_complete(body) {
        assert_eq!([tag.as_bytes(), b"\0"].concat(), body);
    }
    if let Ok((name, value)) = backend::parameter_status(body) {
        assert_eq!([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat(), body);
    }
    let _ = backend::first_column(body);
}
