//! Problems as Feast's client understands them: a JSON string that names one of Feast's exception
//! classes where one fits, so that the client raises just that; else a JSON object, from which it
//! makes a `RuntimeError`. Anything but JSON would make it fail on the answer itself.

use std::fmt::Write as _;

use crate::read::problem::{Code, Problem, quoted};

/// Appends the body and returns the HTTP status.
pub fn refuse(problem: &Problem, out: &mut Vec<u8>) -> u16 {
    let status = match problem.code() {
        // Names are unknown in the same way, whatever they name (semantics 16).
        Code::UnknownField => 404,
        code => code.status(),
    };
    match class_of(problem.code()) {
        None => problem.write_json(out),
        Some(class) => {
            let detail = format!(
                r#"{{"module":"feast.errors","class":"{class}","message":{}}}"#,
                quoted(&sentence(problem))
            );
            out.extend_from_slice(quoted(&detail).as_bytes());
        }
    }
    status
}

const fn class_of(code: Code) -> Option<&'static str> {
    match code {
        Code::UnknownGroup => Some("FeatureViewNotFoundException"),
        Code::UnknownService => Some("FeatureServiceNotFoundException"),
        Code::UnknownField => Some("SpecifiedFeaturesNotPresentError"),
        Code::DuplicateField => Some("FeatureNameCollisionError"),
        Code::MissingKey => Some("RequestDataNotFoundInEntityRowsException"),
        _ => None,
    }
}

/// What a problem document says in members, as one text.
fn sentence(problem: &Problem) -> String {
    let mut text = problem.detail().to_owned();
    if let Some(near) = problem.nearest_name() {
        // Writing to a String cannot fail.
        let _ = write!(text, "; the nearest is `{near}`");
    }
    if !problem.path().is_empty() {
        let _ = write!(text, " (at `{}`)", problem.path());
    }
    text
}
