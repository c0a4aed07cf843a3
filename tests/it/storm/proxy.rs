//! A server before a store's server that fails some of the requests, as networks and stores do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::random::{Random, mixed};

/// Listens until the process ends.
pub(crate) struct Proxy {
    pub(crate) address: String,
    failed: Arc<AtomicU64>,
}

impl Proxy {
    /// Passes requests on to `store`, but for so many in a thousand.
    pub(crate) fn before(store: &str, seed: u64, in_a_thousand: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (store, failed) = (store.to_owned(), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&failed);
        std::thread::spawn(move || {
            for (number, client) in (0..).zip(listener.incoming()) {
                let (store, counter) = (store.clone(), Arc::clone(&counter));
                let random = Random::new(mixed(&[seed, number]));
                std::thread::spawn(move || {
                    // A client that goes away is nobody's loss.
                    let _ = pass_on(&mut client?, &store, (random, in_a_thousand), &counter);
                    Ok::<(), std::io::Error>(())
                });
            }
        });
        Self { address, failed }
    }

    /// How many requests were failed.
    pub(crate) fn failed(&self) -> u64 {
        self.failed.load(Ordering::SeqCst)
    }
}

/// One request and its answer; then the connection is closed.
fn pass_on(
    client: &mut TcpStream,
    store: &str,
    (mut random, in_a_thousand): (Random, u64),
    failed: &AtomicU64,
) -> std::io::Result<()> {
    let (head, body) = request(client)?;
    let creates = head.starts_with("PUT ") && head.to_ascii_lowercase().contains("if-none-match");
    let fails = random.happens(in_a_thousand);
    failed.fetch_add(u64::from(fails), Ordering::SeqCst);
    let choice = if fails { random.below(4) } else { u64::MAX };
    match choice {
        0 => return refuse(client, "503 Slow Down"),
        // What S3 says when two create one name at the same time, though nothing may land.
        1 if creates => return refuse(client, "409 Conflict"),
        // Nothing gets through.
        1 => return Ok(()),
        _ => {}
    }
    let mut server = TcpStream::connect(store)?;
    let closing = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    server.write_all(closing.as_bytes())?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    match choice {
        // It happened, and nobody hears of it.
        2 => Ok(()),
        3 => refuse(client, "500 Internal Server Error"),
        _ => client.write_all(&answer),
    }
}

fn refuse(client: &mut TcpStream, status: &str) -> std::io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(answer.as_bytes())
}

fn request(client: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut read, mut chunk) = (Vec::new(), [0; 65_536]);
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        match client.read(&mut chunk)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            more => read.extend_from_slice(&chunk[..more]),
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = read.split_off(end);
    let missing = length.unwrap_or(0).saturating_sub(body.len());
    client.take(missing as u64).read_to_end(&mut body)?;
    Ok((head, body))
}
