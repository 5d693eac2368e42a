//! Where each column of an answer comes from, and what stands behind them: made once a plan.

use crate::read::columns::Column;
use crate::read::plan::Plan;
use crate::read::problem::{Code, Problem, quoted};
use crate::read::request::Result;

/// Longest text of a warning; a head has room for it.
const WARNING_BYTES_MAX: usize = 160;

/// One column of the answer behind the join keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Output {
    pub(super) read: usize,
    /// Position in the read's fields.
    pub(super) field: usize,
}

/// How the rows of a plan are laid out to Feast.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// In request order.
    pub(super) outputs: Vec<Output>,
    /// JSON text from the end of the results on.
    pub(super) tail: Vec<u8>,
    /// What was sent and not used, in plain ASCII; empty for nothing.
    pub warning: Vec<u8>,
}

impl Layout {
    /// Refuses join keys of different lengths, and none at all.
    pub fn check_rows(&self, plan: &Plan, columns: &[Column]) -> Result<()> {
        let used = || plan.columns.iter().zip(columns);
        let rows = columns.first().map_or(0, Column::len);
        let refuse = |code, detail: String| Err(Problem::new(code, detail).under("entities"));
        if used().any(|(_, column)| column.len() != rows) {
            let lengths =
                used().map(|(plan, column)| format!("`{}` has {}", plan.name, column.len()));
            let lengths: Vec<String> = lengths.collect();
            let detail =
                format!("all lists of `entities` need equally many values; {}", lengths.join(", "));
            return refuse(Code::RaggedKeys, detail);
        }
        if rows == 0 {
            let detail = "at least one value a list was expected, got empty lists".to_owned();
            return refuse(Code::MissingKey, detail);
        }
        Ok(())
    }
}

/// `],"metadata":{"feature_names":[…]}}`
pub(super) fn tail<'n>(
    names: impl Iterator<Item = &'n str>,
    versions: Option<&[(String, u32)]>,
) -> Vec<u8> {
    let names: Vec<String> = names.map(quoted).collect();
    let mut text = format!(r#"],"metadata":{{"feature_names":[{}]"#, names.join(","));
    if let Some(versions) = versions {
        let entry = |(name, version): &(String, u32)| {
            format!(r#"{{"name":{},"version":{version}}}"#, quoted(name))
        };
        let entries: Vec<String> = versions.iter().map(entry).collect();
        text.extend([r#","feature_view_metadata":["#, &entries.join(","), "]"]);
    }
    text.push_str("}}");
    text.into_bytes()
}

/// `not used: a, b`, with every byte that has no place in a header replaced.
pub(super) fn warning<'n>(ignored: impl Iterator<Item = &'n str>) -> Vec<u8> {
    let plain = |letter: char| {
        if letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | ':') {
            letter
        } else {
            '?'
        }
    };
    let mut text = String::new();
    for name in ignored {
        text.push_str(if text.is_empty() { "not used: " } else { ", " });
        // A name that does not fit ends the text, cut.
        text.extend(name.chars().take(WARNING_BYTES_MAX).map(plain));
        if text.len() > WARNING_BYTES_MAX {
            text.truncate(WARNING_BYTES_MAX.saturating_sub(3));
            text.push_str("...");
            break;
        }
    }
    text.into_bytes()
}
