//! Lines of a web server's access log, common or combined, as records.
//!
//! `host ident user [time] "request" status bytes "referrer" "agent"`, with or without the last
//! two, and with or without the name of the virtual host in front (the formats `common`, `combined`
//! and `vhost_combined` of the Apache HTTP Server, and nginx's `combined`). A `-` is an absent
//! value. A log numbers nothing, so an identity is made of the whole line and of how often the very
//! same line came before.

use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;

use jiff::tz::TimeZone;

use super::mapping::{KeyOrigin, Mapping, Origin};
use super::record::Record;
use crate::decimal::parse_number;
use crate::event::{Rejection, Value};
use crate::time::Timestamp;

/// The name of a request's event.
const EVENT_NAME: &str = "http_request";

/// How a log writes an instant.
const TIME_FORMAT: &str = "%d/%b/%Y:%H:%M:%S %z";

/// The field with the client's address.
const CLIENT: &str = "client";
const KEY: &str = "idempotency_key";
const TIMESTAMP: &str = "timestamp";

/// Distinct lines that are remembered, at least, to tell how often one came before.
const LINES_REMEMBERED: usize = 1 << 17;

/// What the fields of a log are unless something else is said: the client is the customer.
pub fn mapping() -> Mapping {
    Mapping {
        key: KeyOrigin::Field(KEY.to_owned()),
        event_name: Origin::Constant(EVENT_NAME.to_owned()),
        customer_id: Origin::Field(CLIENT.to_owned()),
        ..Mapping::default()
    }
}

/// Counts how often each line of an input came before.
///
/// Only the last hundred thousand and more of distinct lines are known, so that memory is bounded;
/// equal lines have equal times, and so stand close together.
#[derive(Debug, Default)]
pub(super) struct Occurrences {
    recent: HashMap<u128, u32>,
    older: HashMap<u128, u32>,
}

impl Occurrences {
    /// Takes note of `line`.
    pub(super) fn see(&mut self, line: &[u8]) -> Seen {
        let mut first = [0; 16];
        first.copy_from_slice(&blake3::hash(line).as_bytes()[..16]);
        let hash = u128::from_be_bytes(first);
        let before = self.recent.get(&hash).or_else(|| self.older.get(&hash)).copied().unwrap_or(0);
        self.recent.insert(hash, before.saturating_add(1));
        if self.recent.len() >= LINES_REMEMBERED {
            self.older = std::mem::take(&mut self.recent);
        }
        Seen { hash, before }
    }
}

/// What tells a line from all others of its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    hash: u128,
    before: u32,
}

impl Seen {
    fn key(self) -> String {
        match self.before {
            0 => format!("{:032x}", self.hash),
            before => format!("{:032x}#{before}", self.hash),
        }
    }
}

/// The record of one line.
///
/// Fields: `client`, `host` (of a virtual host), `user`, `method`, `path`, `top` (the path's first
/// element), `protocol`, `status`, `bytes`, `referrer`, `referrer_host`, `agent`.
///
/// # Errors
/// A line of another form, with what is missing.
pub(super) fn record<'l>(line: &'l [u8], seen: &Seen) -> Result<Record<'l>, Rejection> {
    let unreadable = |detail: &str| Rejection::Unreadable { detail: detail.to_owned() };
    let text = std::str::from_utf8(line).map_err(|_| unreadable("the line is not UTF-8"))?;
    let (front, rest) = text.split_once('[').ok_or_else(|| unreadable("no `[time]`"))?;
    let (time, rest) = rest.split_once(']').ok_or_else(|| unreadable("`[` is not closed"))?;
    let instant = instant(time)?;
    let front: Vec<&str> = front.split_ascii_whitespace().collect();
    let (host, front) = match front.as_slice() {
        [host, front @ ..] if front.len() >= 3 && is_host_before(host, front) => {
            (Some(*host), front)
        }
        front => (None, front),
    };
    let [client, _ident, user @ ..] = front else {
        return Err(unreadable("no `client ident user` before the time"));
    };
    if user.is_empty() {
        return Err(unreadable("no `client ident user` before the time"));
    }
    // A user's name may have spaces.
    let user = user.join(" ");
    let (request, rest) = quoted(rest).ok_or_else(|| unreadable("no quoted request"))?;
    let mut words = rest.trim_start().splitn(3, ' ');
    let (status, bytes) = (words.next().unwrap_or_default(), words.next().unwrap_or("-"));
    let rest = words.next().unwrap_or_default();
    let mut record: Record<'_> = Vec::with_capacity(16);
    record.push((KEY.into(), Value::Text(seen.key().into())));
    record.push((TIMESTAMP.into(), Value::Text(instant.to_string().into())));
    let mut push = |name: &'static str, text: Cow<'_, str>| {
        if text != "-" && !text.is_empty() {
            record.push((name.into(), Value::Text(text.into_owned().into())));
        }
    };
    push(CLIENT, (*client).into());
    push("user", user.into());
    // A port says where the server listens, not whose the host is.
    push("host", host.map_or("", |host| host.rsplit_once(':').map_or(host, |(h, _)| h)).into());
    let mut parts = request.split(' ');
    if let (Some(method), Some(path), protocol, None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    {
        push("method", method.into());
        push("path", path.into());
        push("protocol", protocol.unwrap_or("-").into());
    } else {
        push("request", request.clone());
    }
    let (referrer, rest) = quoted(rest).unwrap_or_default();
    let (agent, _) = quoted(rest).unwrap_or_default();
    push("referrer_host", host_of(&referrer).into());
    push("referrer", referrer);
    push("agent", agent);
    for (name, text) in [("status", status), ("bytes", bytes)] {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match parse_number(text) {
            Ok(number) if digits => record.push((name.into(), Value::Number(number))),
            _ if text == "-" => {}
            _ => return Err(unreadable(&format!("`{text}` is no {name}"))),
        }
    }
    if let Some(top) = top_of(&record) {
        record.push(("top".into(), Value::Text(top.into())));
    }
    Ok(record)
}

fn instant(time: &str) -> Result<Timestamp, Rejection> {
    Timestamp::parse_format(time, TIME_FORMAT, &TimeZone::UTC).map_err(|error| {
        Rejection::TimestampUnreadable {
            text: crate::event::shortened(time),
            reason: error.to_string(),
        }
    })
}

/// Whether the first word names a virtual host, and the client comes behind it: the first is no
/// address, and has a port, or the second is an address or a name with a dot, or three words follow
/// of which the second is the `-` of a client that tells no name.
fn is_host_before(first: &str, rest: &[&str]) -> bool {
    let is_address = |word: &str| word.parse::<IpAddr>().is_ok();
    let has_port = first.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    let client = rest[0];
    let named = is_address(client) || client.contains('.') || (rest.len() == 3 && rest[1] == "-");
    !is_address(first) && (has_port || named)
}

/// The text of the quoted part that comes next and what follows it. A quote inside is written `\"`;
/// one that is never closed ends with the line, as servers cut long ones.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = text.trim_start().strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| match byte {
        _ if escaped => {
            escaped = false;
            false
        }
        b'\\' => {
            escaped = true;
            false
        }
        byte => byte == b'"',
    });
    let (content, rest) = match end {
        Some(end) => (&inner[..end], &inner[end + 1..]),
        None => (inner, ""),
    };
    let content = match content.contains("\\\"") {
        true => Cow::Owned(content.replace("\\\"", "\"")),
        false => Cow::Borrowed(content),
    };
    Some((content, rest))
}

/// The host of an absolute URL, empty for anything else.
fn host_of(url: &str) -> String {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    host.to_ascii_lowercase()
}

/// The first element of the path, empty for `/` and for what is no path from the root; `None` where
/// nothing was asked for.
fn top_of(record: &Record<'_>) -> Option<String> {
    let path = record.iter().find_map(|(name, value)| match value {
        Value::Text(text) if name == "path" => Some(text.as_ref()),
        _ => None,
    })?;
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
    Some(first.unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(line: &str) -> Vec<String> {
        let seen = Occurrences::default().see(line.as_bytes());
        let record = record(line.as_bytes(), &seen).unwrap();
        let text = |value: &Value<'_>| match value {
            Value::Text(text) | Value::Json(text) => text.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Boolean(boolean) => boolean.to_string(),
        };
        let shown = record.iter().filter(|(name, _)| name != KEY);
        shown.map(|(name, value)| format!("{name}={}", text(value))).collect()
    }

    #[test]
    fn the_usual_forms_become_fields() {
        for (name, line, want) in [
            (
                "common",
                r#"127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326"#,
                "timestamp=2000-10-10T20:55:36Z client=127.0.0.1 user=frank method=GET \
                 path=/apache_pb.gif protocol=HTTP/1.0 status=200 bytes=2326 top=apache_pb.gif",
            ),
            (
                "combined, nothing sent",
                r#"::1 - - [01/Jan/2026:00:00:00 +0100] "HEAD /a/b?c=/d HTTP/1.1" 304 - "https://user@X.example:8080/p" "curl/8 \"x\"""#,
                "timestamp=2025-12-31T23:00:00Z client=::1 method=HEAD path=/a/b?c=/d \
                 protocol=HTTP/1.1 referrer_host=x.example referrer=https://user@X.example:8080/p \
                 agent=curl/8 \"x\" status=304 top=a",
            ),
            (
                "virtual host",
                r#"a.example:443 10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "POST / HTTP/2.0" 201 0 "-" "-""#,
                "timestamp=2026-01-01T00:00:00Z client=10.0.0.1 host=a.example method=POST path=/ \
                 protocol=HTTP/2.0 status=201 bytes=0 top=",
            ),
            (
                "virtual host and a client without a dot",
                r#"a.example:443 localhost - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 5"#,
                "timestamp=2026-01-01T00:00:00Z client=localhost host=a.example method=GET path=/ \
                 protocol=HTTP/1.1 status=200 bytes=5 top=",
            ),
            (
                "a user's name with a space",
                r#"10.0.0.1 - frank doe [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 5"#,
                "timestamp=2026-01-01T00:00:00Z client=10.0.0.1 user=frank doe method=GET path=/ \
                 protocol=HTTP/1.1 status=200 bytes=5 top=",
            ),
            (
                "an agent that was cut, and no request",
                r#"10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "-" 408 0 "-" "Mozilla/5"#,
                "timestamp=2026-01-01T00:00:00Z client=10.0.0.1 agent=Mozilla/5 status=408 bytes=0",
            ),
            (
                "a request that is none",
                r#"10.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "\x16\x03\x01" 400 226"#,
                r"timestamp=2026-01-01T00:00:00Z client=10.0.0.1 request=\x16\x03\x01 status=400 bytes=226",
            ),
        ] {
            assert_eq!(fields(line).join(" "), want, "{name}");
        }
    }

    #[test]
    fn other_lines_are_refused_with_what_is_missing() {
        for (line, want) in [
            ("", "no `[time]`"),
            ("hello", "no `[time]`"),
            ("1.1.1.1 - - [01/Jan/2026", "`[` is not closed"),
            (r#"- [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1"#, "no `client ident user`"),
            (r#"1 - - [32/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1"#, "32/Jan/2026"),
            (r#"1 - - [01/Jan/2026:00:00:00 +0000] GET / HTTP/1.1 200 1"#, "no quoted request"),
            (r#"1 - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" ok 1"#, "`ok` is no status"),
            (r#"1 - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 1k"#, "`1k` is no bytes"),
            (r#"1 - - [01/Jan/2026:00:00:00 +0000] "GET / HTTP/1.1" 200 -5"#, "`-5` is no bytes"),
        ] {
            let seen = Occurrences::default().see(line.as_bytes());
            let rejection = record(line.as_bytes(), &seen).unwrap_err().to_string();
            assert!(rejection.contains(want), "{line}: {rejection}");
        }
    }

    #[test]
    fn equal_lines_are_told_apart_by_how_often_they_came() {
        let mut occurrences = Occurrences::default();
        let seen = ["a", "b", "a", "a"].map(|line| occurrences.see(line.as_bytes()));
        assert_eq!(seen.map(|seen| seen.before), [0, 0, 1, 2]);
        let keys: std::collections::BTreeSet<String> = seen.map(Seen::key).into();
        assert_eq!(keys.len(), 4);
        // Another input with the same lines has the same keys.
        assert_eq!(Occurrences::default().see(b"a").key(), seen[0].key());
    }
}
