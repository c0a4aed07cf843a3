//! Fills memory with decoded events, on every core, keeping the order of the input.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::decode::{Decoded, Decoder, Rejected};
use super::source::{Piece, Pieces};
use crate::error::{Error, Result};

/// Decoded pieces in the order of the input.
#[derive(Debug, Default)]
pub(super) struct Filled {
    /// One entry per piece.
    pub pieces: Vec<Decoded>,
    /// How many bytes of input they took.
    pub input_bytes: u64,
    /// Whether the input is at its end.
    pub ended: bool,
}

/// When to stop filling.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Bytes of columns that may be held.
    pub memory_bytes: usize,
    /// Events that may be held.
    pub events: u64,
}

/// Decodes pieces with `threads` threads until there is no more `room`, or no more input.
///
/// # Errors
/// An input that cannot be read. What was decoded before it is lost with it, which costs nothing:
/// a batch counts only once it is committed.
pub(super) fn fill(
    pieces: &mut Pieces<'_>,
    decoder: &Decoder,
    room: Room,
    threads: usize,
) -> Result<Filled> {
    let threads = threads.max(1);
    let (to_decode, queue) = sync_channel::<(usize, Piece)>(threads);
    let (decoded, results) = sync_channel::<(usize, Result<Decoded>)>(threads * 4);
    let queue = Mutex::new(queue);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (queue, decoded) = (&queue, decoded.clone());
            scope.spawn(move || work(queue, &decoded, decoder));
        }
        drop(decoded);
        let mut tally = Tally::default();
        let sent = send(pieces, &to_decode, &results, &mut tally, room);
        // The decoders stop when their queue is closed.
        drop(to_decode);
        for (place, result) in results {
            tally.take(place, result);
        }
        let ended = sent?;
        if let Some(error) = tally.error {
            return Err(error);
        }
        let input_bytes = tally.input_bytes;
        Ok(Filled { pieces: tally.pieces.into_values().collect(), input_bytes, ended })
    })
}

fn work(
    queue: &Mutex<Receiver<(usize, Piece)>>,
    decoded: &SyncSender<(usize, Result<Decoded>)>,
    decoder: &Decoder,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((place, piece)) = next else { return };
        if decoded.send((place, decoder.decode(&piece))).is_err() {
            return;
        }
    }
}

/// What has come back from the decoders.
#[derive(Default)]
struct Tally {
    pieces: BTreeMap<usize, Decoded>,
    memory_bytes: usize,
    events: u64,
    input_bytes: u64,
    error: Option<Error>,
}

impl Tally {
    fn take(&mut self, place: usize, result: Result<Decoded>) {
        match result {
            Ok(decoded) => {
                self.memory_bytes += decoded.chunk.memory_bytes();
                self.memory_bytes += decoded.rejected.iter().map(rejected_bytes).sum::<usize>();
                self.events += decoded.read();
                self.pieces.insert(place, decoded);
            }
            Err(error) => self.error = Some(error),
        }
    }

    fn is_full(&self, room: Room) -> bool {
        self.error.is_some() || self.memory_bytes >= room.memory_bytes || self.events >= room.events
    }
}

/// Bytes of memory that a refused event holds on to, the texts of its reason roughly.
fn rejected_bytes(rejected: &Rejected) -> usize {
    const REASON_BYTES: usize = 128;
    size_of::<Rejected>() + rejected.event.capacity() + REASON_BYTES
}

/// Hands out pieces while there is room; whether the input ended.
fn send(
    pieces: &mut Pieces<'_>,
    to_decode: &SyncSender<(usize, Piece)>,
    results: &Receiver<(usize, Result<Decoded>)>,
    tally: &mut Tally,
    room: Room,
) -> Result<bool> {
    for place in 0.. {
        for (place, result) in results.try_iter() {
            tally.take(place, result);
        }
        if tally.is_full(room) {
            break;
        }
        let Some(piece) = pieces.next_piece()? else { return Ok(true) };
        tally.input_bytes += piece.bytes;
        if to_decode.send((place, piece)).is_err() {
            return Err(Error::internal("the decoders stopped"));
        }
    }
    Ok(false)
}
