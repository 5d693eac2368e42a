//! Feast's `POST /get-online-features` (semantics 16): its request onto a plan of ours, and our rows
//! in its column-major answer, so that Feast's own client reads from here unmodified.
//!
//! What Feast does wrong is not copied: order is the request's, null is not missing, a caller's
//! mistake is a 4xx, and NaN is a null with a status instead of a failure.

mod compile;
mod layout;
mod refusal;
mod writer;

pub use layout::Layout;
pub use refusal::refuse;
pub use writer::{Feast, Room};

use std::collections::HashSet;

use super::columns::Column;
use super::plan::Plan;
use super::problem::{Code, Problem};
use super::request::{KeyColumn, KeyColumns, Name, Result, duplicate, key_columns, member, name};
use crate::json::{Reader, Token};

/// A checked request of Feast's.
#[derive(Debug)]
pub struct Request<'a> {
    target: Target<'a>,
    /// Join keys, whether a read uses them or not.
    entities: KeyColumns<'a>,
    full_names: bool,
    versions: bool,
    /// Members that Feast has and this route does not, or that nobody has.
    ignored: Vec<String>,
}

#[derive(Debug)]
enum Target<'a> {
    Service(Name<'a>),
    /// References, `group:field` each.
    Features(Vec<Name<'a>>),
}

#[derive(Default)]
struct Draft<'a> {
    service: Option<Name<'a>>,
    features: Option<Vec<Name<'a>>>,
    entities: Option<KeyColumns<'a>>,
    full_names: bool,
    versions: bool,
    ignored: Vec<String>,
}

impl<'a> Request<'a> {
    /// Checks a body.
    pub fn parse(body: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(body)?;
        let token = reader.peek()?;
        if token != Token::Object {
            let detail =
                format!("the body must be an object with `entities`, got {}", token.name());
            return Err(Problem::new(Code::WrongType, detail).at(reader.offset()));
        }
        let mut draft = Draft::default();
        let mut seen = HashSet::new();
        reader.begin_object()?;
        while let Some(member) = member(&mut reader)? {
            if !seen.insert(member.text.clone()) {
                return Err(duplicate(&member));
            }
            draft.take(&mut reader, &member.text).map_err(|problem| problem.under(&member.text))?;
        }
        reader.finish()?;
        draft.finish()
    }

    /// The key columns that the plan reads, in the order of the body.
    pub fn used<'r>(&'r self, plan: &'r Plan) -> impl Iterator<Item = &'r KeyColumn<'a>> {
        self.entities.columns.iter().filter(|column| is_used(plan, column))
    }

    /// Whether every key column is read.
    #[must_use]
    pub fn uses_all(&self, plan: &Plan) -> bool {
        self.entities.columns.len() == plan.columns.len()
    }

    /// Refuses key columns that no read uses and that are not as long as the others.
    pub fn check_unused(&self, plan: &Plan, values: &[Column]) -> Result<()> {
        let rows = values.first().map_or(0, Column::len);
        for column in self.entities.columns.iter().filter(|column| !is_used(plan, column)) {
            let length = count(column.values.clone())?;
            if length != rows {
                let detail = format!(
                    "all lists of `entities` need equally many values; `{}` has {length}, \
                     others have {rows}",
                    column.name.text
                );
                return Err(Problem::new(Code::RaggedKeys, detail)
                    .at(column.start)
                    .under(&column.name.text)
                    .under("entities"));
            }
        }
        Ok(())
    }
}

impl<'a> Draft<'a> {
    fn take(&mut self, reader: &mut Reader<'a>, member: &str) -> Result<()> {
        if member != "entities" && reader.peek()? == Token::Null {
            return Ok(reader.null()?);
        }
        match member {
            "entities" => self.entities = Some(key_columns(reader)?),
            "feature_service" => self.service = Some(name(reader)?),
            "features" => self.features = Some(references(reader)?),
            "full_feature_names" => self.full_names = reader.boolean()?,
            "include_feature_view_version_metadata" => self.versions = reader.boolean()?,
            _ => {
                reader.skip()?;
                self.ignored.push(member.to_owned());
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Request<'a>> {
        let missing = |detail: &str| Problem::new(Code::MissingMember, detail.to_owned());
        let entities = self.entities.ok_or_else(|| missing("`entities` must be given"))?;
        // The service wins, as it does in Feast.
        let target = match (self.service, self.features) {
            (Some(service), _) => Target::Service(service),
            (None, Some(features)) if !features.is_empty() => Target::Features(features),
            _ => {
                return Err(missing(
                    "`features`, a list that is not empty, or `feature_service` \
                                    must be given",
                ));
            }
        };
        Ok(Request {
            target,
            entities,
            full_names: self.full_names,
            versions: self.versions,
            ignored: self.ignored,
        })
    }
}

fn is_used(plan: &Plan, column: &KeyColumn<'_>) -> bool {
    plan.columns.iter().any(|planned| planned.name == column.name.text)
}

fn references<'a>(reader: &mut Reader<'a>) -> Result<Vec<Name<'a>>> {
    let mut references = Vec::new();
    reader.begin_array()?;
    while reader.next_item()? {
        references.push(name(reader).map_err(|problem| problem.item(references.len()))?);
    }
    Ok(references)
}

fn count(mut list: Reader<'_>) -> Result<usize> {
    let mut items: usize = 0;
    list.begin_array()?;
    while list.next_item()? {
        list.skip()?;
        items = items.saturating_add(1);
    }
    Ok(items)
}
