//! A request ready to run: names resolved against one generation of the catalog, once for all
//! requests of its shape.

use std::sync::Arc;

use super::arrow;
use super::counters::GroupCounters;
use super::feast::Layout;
use super::problem::Problem;
use super::request::Options;
use crate::catalog::{FeatureType, Group};
use crate::schema::Scalar;
use crate::status::FieldSet;
use crate::transcode::Transcoder;

/// Name of the column that opens every event.
pub const EVENT_TIME_FIELD: &str = "_event_time_ms";

/// Which request is read and which answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accept {
    /// JSON text.
    Json,
    /// The Avro envelope.
    Avro,
    /// Feast's answer to Feast's request (semantics 16).
    Feast,
    /// An Arrow IPC stream.
    Arrow,
}

impl Accept {
    /// The member of the body that holds the key columns.
    #[must_use]
    pub const fn keys_member(self) -> &'static str {
        match self {
            Self::Json | Self::Avro | Self::Arrow => "keys",
            Self::Feast => "entities",
        }
    }
}

/// One key column that the body must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnPlan {
    /// Text, Integer or Long.
    pub scalar: Scalar,
    /// Its name in the body.
    pub name: String,
    /// The read it stands in; None stands beside `service`.
    pub read: Option<usize>,
}

/// One read, ready to run.
#[derive(Debug)]
pub struct PlannedRead {
    /// The group.
    pub group: Arc<Group>,
    /// Name of the result, for a service.
    pub alias: Option<String>,
    /// Positions in the current schema of the fields, in the order asked for.
    pub positions: Vec<usize>,
    /// JSON text of each field's name, in the order asked for.
    pub labels: Vec<String>,
    /// Most events of a History row.
    pub limit: usize,
    /// For each key field in key order, its column.
    pub columns: Vec<usize>,
    /// JSON text of the result up to its rows.
    pub opening: Vec<u8>,
    /// JSON text of a row that cannot be told.
    pub null_row: Vec<u8>,
    /// JSON text of a row that is not there.
    pub missing_row: Vec<u8>,
    /// Where its rows are counted.
    pub counters: Arc<GroupCounters>,
    /// By position in the group's schemas; None where stored bytes do not resolve.
    pub(super) transcoders: Vec<Option<Transcoder>>,
    /// By position in the group's schemas: the current fields that the schema lacks.
    pub(super) lacking: Vec<FieldSet>,
}

/// A request, ready to run.
#[derive(Debug)]
pub struct Plan {
    /// Of the catalog it was made from.
    pub generation: u64,
    /// In request order.
    pub reads: Vec<PlannedRead>,
    /// In the order of the body.
    pub columns: Vec<ColumnPlan>,
    /// How it is answered.
    pub options: Options,
    /// Which answer is printed.
    pub accept: Accept,
    /// Whether a column of one key serves every row (semantics 12).
    pub broadcast: bool,
    /// How results are laid out to Feast.
    pub feast: Option<Layout>,
    /// How rows become an Arrow record batch.
    pub arrow: Option<arrow::Layout>,
}

impl ColumnPlan {
    /// Puts the column's place around a problem.
    #[must_use]
    pub fn place(&self, accept: Accept, problem: Problem) -> Problem {
        let problem = problem.under(&self.name).under(accept.keys_member());
        match self.read {
            Some(read) => problem.item(read).under("reads"),
            None => problem,
        }
    }
}

impl PlannedRead {
    /// Number of fields asked for.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.labels.len()
    }

    /// Whether rows are lists of events.
    #[must_use]
    pub fn is_history(&self) -> bool {
        self.group.feature_type == FeatureType::History
    }

    /// The transcoder for bodies of the schema at a position of the group's schemas.
    #[must_use]
    pub fn transcoder(&self, schema: usize) -> Option<&Transcoder> {
        self.transcoders.get(schema)?.as_ref()
    }

    /// Positions of the current fields that the schema at a position lacks.
    #[must_use]
    pub fn lacking(&self, schema: usize) -> Option<&FieldSet> {
        self.lacking.get(schema).filter(|fields| !fields.is_empty())
    }

    /// Position of the current schema.
    #[must_use]
    pub fn current(&self) -> usize {
        self.group.schemas.len().saturating_sub(1)
    }

    /// Position of the schema with a fingerprint, newest first.
    #[must_use]
    pub fn schema_position(&self, fingerprint: u64) -> Option<usize> {
        self.group.schemas.iter().rposition(|schema| schema.fingerprint == fingerprint)
    }
}

impl Plan {
    /// Bytes that it takes in memory, roughly.
    #[must_use]
    pub fn weight(&self) -> usize {
        let of_read = |read: &PlannedRead| {
            let values = read.width().saturating_mul(read.transcoders.len().max(1));
            values.saturating_mul(200).saturating_add(read.opening.len()).saturating_add(500)
        };
        let arrow = self.arrow.as_ref().map_or(500, arrow::Layout::weight);
        self.reads.iter().map(of_read).fold(arrow, usize::saturating_add)
    }
}
