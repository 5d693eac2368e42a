//! What is due, what is sent and expected, and what came of it: files shared with the Python side.

use std::error::Error;
use std::fs;
use std::io::Write;
use std::path::Path;

use crate::judge::Fate;

/// A request as sent, and the body of its answer when nothing is wrong; empty for any answer.
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    pub(crate) answer: Vec<u8>,
}

/// When a request falls due, in seconds after the start, and which exchange it is.
pub(crate) struct Due {
    pub(crate) at_s: f64,
    pub(crate) exchange: usize,
}

/// Column by column: due (s after the start), latency (s), how late it was sent (s), fate.
#[derive(Default)]
pub(crate) struct Outcomes {
    due_s: Vec<f64>,
    latency_s: Vec<f32>,
    late_s: Vec<f32>,
    fates: Vec<u8>,
}

impl Outcomes {
    #[expect(clippy::cast_possible_truncation, reason = "microseconds are kept")]
    pub(crate) fn note(&mut self, due_s: f64, latency_s: f64, late_s: f64, fate: Fate) {
        self.due_s.push(due_s);
        self.latency_s.push(latency_s as f32);
        self.late_s.push(late_s as f32);
        self.fates.push(fate as u8);
    }
}

/// Two lines an exchange, the body of a request and that of its answer.
pub(crate) fn read_exchanges(
    file: &Path,
    path: &str,
    accept: &str,
) -> Result<Vec<Exchange>, Box<dyn Error>> {
    let text = fs::read(file)?;
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let exchanges = lines.chunks_exact(2).map(|pair| {
        let [body, answer] = pair else { return None };
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
             Accept: {accept}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        Some(Exchange { request, answer: answer.to_vec() })
    });
    exchanges.collect::<Option<_>>().ok_or_else(|| "an exchange has two lines".into())
}

/// A count (u64), the due times (f64), the numbers of the exchanges (u32), in native byte order.
pub(crate) fn read_plan(file: &Path, exchanges: usize) -> Result<Vec<Due>, Box<dyn Error>> {
    let bytes = fs::read(file)?;
    let (count, columns) = bytes.split_first_chunk().ok_or("the plan is empty")?;
    let count = usize::try_from(u64::from_ne_bytes(*count))?;
    let (due, numbers) =
        columns.split_at_checked(count.saturating_mul(8)).ok_or("the plan ends in its times")?;
    if numbers.len() != count.saturating_mul(4) {
        return Err("the plan holds another count of times than of exchanges".into());
    }
    let mut plan = Vec::with_capacity(count);
    for (at_s, number) in due.as_chunks().0.iter().zip(numbers.as_chunks().0) {
        let exchange = usize::try_from(u32::from_ne_bytes(*number))?;
        if exchange >= exchanges {
            return Err(format!("the plan names exchange {exchange} of {exchanges}").into());
        }
        plan.push(Due { at_s: f64::from_ne_bytes(*at_s), exchange });
    }
    Ok(plan)
}

/// A count and the four columns.
pub(crate) fn write_outcomes(path: &Path, outcomes: &Outcomes) -> std::io::Result<()> {
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    file.write_all(&(outcomes.fates.len() as u64).to_ne_bytes())?;
    for due_s in &outcomes.due_s {
        file.write_all(&due_s.to_ne_bytes())?;
    }
    for latency_s in &outcomes.latency_s {
        file.write_all(&latency_s.to_ne_bytes())?;
    }
    for late_s in &outcomes.late_s {
        file.write_all(&late_s.to_ne_bytes())?;
    }
    file.write_all(&outcomes.fates)?;
    file.flush()
}
