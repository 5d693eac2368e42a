//! What an answer is, by its status and by the one that was expected.

use serde_json::Value;

/// What became of a request; the numbers are those of `headrace.loadtest.open_loop.Fate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Ok = 0,
    /// 200, and rows that could not be read say so.
    Partial = 1,
    /// 503 with Retry-After.
    Refused = 2,
    /// Any other answer, none at all, or a broken connection.
    Failed = 3,
    /// All connections were busy when it fell due, and no more requests may wait.
    Unsent = 4,
    /// 200, and a row is neither as expected nor said to be unavailable.
    Wrong = 5,
}

const OK_START: &[u8] = b"HTTP/1.1 200 ";
const UNAVAILABLE_START: &[u8] = b"HTTP/1.1 503 ";
const HEAD_END: &[u8] = b"\r\n\r\n";
const CONTENT_LENGTH: &[u8] = b"\r\ncontent-length:";
const RETRY_AFTER: &[u8] = b"\r\nretry-after:";

/// None while the answer is not whole; without Content-Length it cannot be timed and has failed.
pub(crate) fn judge(received: &[u8], expected: &[u8]) -> Option<Fate> {
    if !expected.is_empty() && received.starts_with(OK_START) && received.ends_with(expected) {
        return Some(Fate::Ok);
    }
    let end = find(received, HEAD_END)?;
    let (head, rest) = received.split_at_checked(end)?;
    let body = rest.get(HEAD_END.len()..)?;
    let head = head.to_ascii_lowercase();
    let Some(length) = content_length(&head) else { return Some(Fate::Failed) };
    if body.len() < length {
        return None;
    }
    if head.starts_with(&UNAVAILABLE_START.to_ascii_lowercase())
        && find(&head, RETRY_AFTER).is_some()
    {
        return Some(Fate::Refused);
    }
    if !head.starts_with(&OK_START.to_ascii_lowercase()) {
        return Some(Fate::Failed);
    }
    Some(if expected.is_empty() { Fate::Ok } else { compare(body, expected) })
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn content_length(head: &[u8]) -> Option<usize> {
    let after = head.get(find(head, CONTENT_LENGTH)?..)?.get(CONTENT_LENGTH.len()..)?;
    let line = after.split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// Rows that are said to be unavailable are excused; all others must be as expected.
fn compare(body: &[u8], expected: &[u8]) -> Fate {
    let (Some(found), Some(wanted)) = (results(body), results(expected)) else {
        return Fate::Wrong;
    };
    let same = found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|(found, wanted)| excused(found, wanted) == Some(true));
    if same { Fate::Partial } else { Fate::Wrong }
}

/// Whether a result differs from another in rows only that it says are unavailable; None when either
/// has not the form of a result in rows.
fn excused(found: &Value, wanted: &Value) -> Option<bool> {
    let mut unavailable = Vec::new();
    for status in found.get("statuses")?.as_array()? {
        if status.get("status")? != "UNAVAILABLE"
            && !wanted.get("statuses")?.as_array()?.contains(status)
        {
            return Some(false);
        }
        unavailable.push(usize::try_from(status.get("row")?.as_u64()?).ok()?);
    }
    let (rows, others) = (found.get("rows")?.as_array()?, wanted.get("rows")?.as_array()?);
    let as_wanted = rows
        .iter()
        .zip(others)
        .enumerate()
        .all(|(at, (row, other))| row == other || unavailable.contains(&at));
    Some(as_wanted && rows.len() == others.len())
}

fn results(body: &[u8]) -> Option<Vec<Value>> {
    let mut answer: Value = serde_json::from_slice(body).ok()?;
    match answer.get_mut("results")?.take() {
        Value::Array(results) => Some(results),
        _ => None,
    }
}
