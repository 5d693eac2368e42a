//! From a checked request to a [`Plan`]: groups, fields, keys and transcoders.

use std::sync::Arc;

use super::Limits;
use super::arrow;
use super::counters::Counters;
use super::plan::{Accept, ColumnPlan, EVENT_TIME_FIELD, Plan, PlannedRead};
use super::problem::{Code, Problem, echo, quoted};
use super::request::{KeyColumns, Name, Options, ReadRequest, Request, Result, Target};
use crate::catalog::{Catalog, FeatureType, Group, Service, ServiceRead};
use crate::nearest::nearest;
use crate::schema::{RecordSchema, Scalar};
use crate::status::FieldSet;
use crate::transcode::{self, Transcoder, Unwritten};

impl Plan {
    /// Resolves a request.
    pub fn compile(
        catalog: &Catalog,
        request: &Request<'_>,
        accept: Accept,
        limits: &Limits,
        counters: &Counters,
    ) -> Result<Self> {
        let mut draft = Draft {
            catalog,
            accept,
            options: request.options,
            counters,
            reads: Vec::new(),
            columns: Vec::new(),
        };
        match &request.target {
            Target::Reads(reads) => {
                for (position, read) in reads.iter().enumerate() {
                    draft
                        .add_read(position, read)
                        .map_err(|problem| problem.item(position).under("reads"))?;
                }
            }
            Target::Service(name, keys) => draft.add_service(name, keys, limits)?,
        }
        let (reads, generation) = (draft.reads, catalog.generation);
        let service = matches!(request.target, Target::Service(..));
        let arrow = (accept == Accept::Arrow)
            .then(|| arrow::Layout::new(&reads, generation, service, request.options))
            .transpose()?;
        Ok(Self {
            generation,
            reads,
            columns: draft.columns,
            options: request.options,
            accept,
            broadcast: service,
            feast: None,
            arrow,
        })
    }
}

pub(super) struct Draft<'c> {
    pub(super) catalog: &'c Catalog,
    pub(super) accept: Accept,
    pub(super) options: Options,
    pub(super) counters: &'c Counters,
    pub(super) reads: Vec<PlannedRead>,
    pub(super) columns: Vec<ColumnPlan>,
}

impl Draft<'_> {
    fn add_read(&mut self, position: usize, read: &ReadRequest<'_>) -> Result<()> {
        let group = find_group(self.catalog, &read.group)
            .map_err(|problem| problem.under("feature_group"))?;
        let positions = match &read.fields {
            None => all_fields(&group),
            Some(names) => {
                let found = find_fields(&group, names);
                let found = found.and_then(|found| self.check_whole(&group, found, names));
                found.map_err(|problem| problem.under("fields"))?
            }
        };
        let limit = check_limit(&group, read.limit).map_err(|problem| problem.under("limit"))?;
        let columns = self
            .own_columns(position, &group, &read.keys)
            .map_err(|problem| problem.under("keys"))?;
        let planned = self.plan(group, None, positions, limit, columns);
        self.reads.push(planned);
        Ok(())
    }

    /// An Avro answer holds whole records (semantics 13).
    fn check_whole(
        &self,
        group: &Group,
        positions: Vec<usize>,
        names: &[Name<'_>],
    ) -> Result<Vec<usize>> {
        if self.accept != Accept::Avro || positions.len() == group.current().fields.len() {
            return Ok(positions);
        }
        let detail = "an Avro answer holds whole records; leave `fields` out or ask for JSON";
        let offset = names.first().map_or(0, |name| name.offset);
        Err(Problem::new(Code::AvroWholeRecords, detail).at(offset))
    }

    /// Takes the key columns that stand in one read; all are key fields, none is missing.
    fn own_columns(
        &mut self,
        read: usize,
        group: &Group,
        keys: &KeyColumns<'_>,
    ) -> Result<Vec<usize>> {
        let base = self.columns.len();
        for column in &keys.columns {
            let name = &column.name;
            let Some(field) = group.keys.iter().find(|field| field.name == name.text) else {
                let known = || group.keys.iter().map(|field| field.name.as_str());
                let detail = format!(
                    "`{}` is no key field of `{}`; its key fields are {}",
                    echo(&name.text),
                    group.name,
                    listed(known())
                );
                return Err(unknown(Code::UnknownKey, detail, name, known()));
            };
            self.columns.push(ColumnPlan {
                scalar: field.scalar,
                name: field.name.clone(),
                read: Some(read),
            });
        }
        let find = |wanted: &str| {
            keys.columns
                .iter()
                .position(|column| column.name.text == wanted)
                .map(|position| base.saturating_add(position))
                .ok_or_else(|| missing_key(wanted, &group.name, keys.offset))
        };
        group.keys.iter().map(|field| find(&field.name)).collect()
    }

    fn add_service(
        &mut self,
        name: &Name<'_>,
        keys: &KeyColumns<'_>,
        limits: &Limits,
    ) -> Result<()> {
        let service =
            find_service(self.catalog, name).map_err(|problem| problem.under("service"))?;
        if service.reads.len() > limits.reads_max {
            let detail =
                format!("service `{}` makes more than {} reads", service.name, limits.reads_max);
            return Err(Problem::new(Code::TooManyReads, detail).at(name.offset).under("service"));
        }
        self.take_service_columns(&service, keys).map_err(|problem| problem.under("keys"))?;
        for read in &service.reads {
            self.add_service_read(&service, read, keys.offset)?;
        }
        Ok(())
    }

    /// Takes the key columns beside `service`; every one is used by some read.
    fn take_service_columns(&mut self, service: &Service, keys: &KeyColumns<'_>) -> Result<()> {
        let wanted = || service.reads.iter().flat_map(|read| &read.request_keys);
        for column in &keys.columns {
            let name = &column.name;
            if !wanted().any(|wanted| *wanted == name.text) {
                let mut known: Vec<&str> = wanted().map(String::as_str).collect();
                known.sort_unstable();
                known.dedup();
                let detail = format!(
                    "`{}` is no key of service `{}`; its keys are {}",
                    echo(&name.text),
                    service.name,
                    listed(known.iter().copied())
                );
                return Err(unknown(Code::UnknownKey, detail, name, known.into_iter()));
            }
            let scalar = self
                .service_scalar(service, &name.text)
                .map_err(|problem| problem.at(name.offset).under(&name.text))?;
            let name = name.text.clone().into_owned();
            self.columns.push(ColumnPlan { scalar, name, read: None });
        }
        Ok(())
    }

    /// The type of a request key. A group that is gone is told of with its read.
    fn service_scalar(&self, service: &Service, request_key: &str) -> Result<Scalar> {
        let uses = service.reads.iter().flat_map(|read| {
            let group = self.catalog.group(&read.group);
            let keys = group
                .into_iter()
                .flat_map(|group| group.keys.iter().map(|key| (group.name.as_str(), key.scalar)));
            let named = keys.zip(&read.request_keys);
            named.filter(|(_, name)| *name == request_key).map(|(used, _)| used)
        });
        shared_scalar(request_key, uses).map(|scalar| scalar.unwrap_or(Scalar::Long))
    }

    fn add_service_read(
        &mut self,
        service: &Service,
        read: &ServiceRead,
        keys_offset: usize,
    ) -> Result<()> {
        let broken = |detail: String| Problem::new(Code::UnknownService, detail).under("service");
        let group = self.catalog.group(&read.group).cloned().ok_or_else(|| {
            broken(format!("service `{}` reads `{}`, which is gone", service.name, read.group))
        })?;
        let positions = match &read.fields {
            None => all_fields(&group),
            Some(names) => names
                .iter()
                .map(|name| field_position(&group, name))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| {
                    let group = &group.name;
                    broken(format!("service `{}` reads fields `{group}` lacks", service.name))
                })?,
        };
        let mut columns = Vec::with_capacity(group.keys.len());
        for wanted in &read.request_keys {
            let position = self.columns.iter().position(|column| column.name == *wanted);
            let missing = || missing_key(wanted, &group.name, keys_offset).under("keys");
            columns.push(position.ok_or_else(missing)?);
        }
        let most = usize::try_from(group.max_events).unwrap_or(usize::MAX);
        let limit = read.limit.and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.map_or(most, |limit| limit.min(most));
        let planned = self.plan(group, read.alias.clone(), positions, limit, columns);
        self.reads.push(planned);
        Ok(())
    }

    pub(super) fn plan(
        &self,
        group: Arc<Group>,
        alias: Option<String>,
        positions: Vec<usize>,
        limit: usize,
        columns: Vec<usize>,
    ) -> PlannedRead {
        // An Avro answer holds whole records, whatever a service asks for.
        let whole = self.accept == Accept::Avro;
        let positions = if whole { all_fields(&group) } else { positions };
        let unwritten =
            if self.options.missing_null { Unwritten::Null } else { Unwritten::Default };
        let int64_as_text = self.options.int64_as_text;
        let epoch_seconds = self.accept == Accept::Feast;
        let options =
            transcode::Options { int64_as_text, unwritten, epoch_seconds, ..Default::default() };
        let transcoder =
            |writer| Transcoder::with_options(writer, group.current(), &positions, options).ok();
        let transcoders: Vec<Option<Transcoder>> = match self.accept {
            Accept::Json | Accept::Feast => {
                group.schemas.iter().map(|writer| transcoder(writer)).collect()
            }
            Accept::Avro | Accept::Arrow => Vec::new(),
        };
        let fields = &group.current().fields;
        let names = positions.iter().filter_map(|position| fields.get(*position));
        let labels: Vec<String> = names.map(|field| quoted(&field.name)).collect();
        let history = group.feature_type == FeatureType::History;
        let mut missing_row = Vec::new();
        match transcoders.last().and_then(Option::as_ref) {
            Some(transcoder) if !history => transcoder.missing_row(&mut missing_row),
            _ => missing_row.extend_from_slice(b"[]"),
        }
        let null_row = if history { "null".to_owned() } else { null_row(labels.len()) };
        let lacking = group.schemas.iter().map(|writer| lacking(writer, &group)).collect();
        PlannedRead {
            opening: opening(&group, alias.as_deref(), &labels, self.options.columns),
            counters: self.counters.group(&group.name),
            null_row: null_row.into_bytes(),
            group,
            alias,
            positions,
            labels,
            limit,
            columns,
            missing_row,
            transcoders,
            lacking,
        }
    }
}

/// `{"feature_group":"…","as":"…","fields":[…],"rows":[`
fn opening(group: &Group, alias: Option<&str>, labels: &[String], columns: bool) -> Vec<u8> {
    let mut text = format!(r#"{{"feature_group":{}"#, quoted(&group.name));
    if let Some(alias) = alias {
        text.push_str(r#","as":"#);
        text.push_str(&quoted(alias));
    }
    text.push_str(r#","fields":["#);
    if group.feature_type == FeatureType::History {
        text.push_str(&quoted(EVENT_TIME_FIELD));
        text.push(',');
    }
    text.push_str(&labels.join(","));
    text.push_str(if columns { r#"],"columns":["# } else { r#"],"rows":["# });
    text.into_bytes()
}

fn null_row(width: usize) -> String {
    format!("[{}]", vec!["null"; width].join(","))
}

fn lacking(writer: &RecordSchema, group: &Group) -> FieldSet {
    let mut lacking = FieldSet::default();
    for (position, field) in group.current().fields.iter().enumerate() {
        if writer.position(field.id).is_none() {
            lacking.insert(position);
        }
    }
    lacking
}

/// The type that a key column must have to fit every use of it, each given as the name of a group
/// and the type of its key field; None when there is no use.
pub(super) fn shared_scalar<'g>(
    name: &str,
    mut uses: impl Iterator<Item = (&'g str, Scalar)>,
) -> Result<Option<Scalar>> {
    let Some((first_group, first)) = uses.next() else { return Ok(None) };
    let mut shared = first;
    for (group, scalar) in uses {
        shared = narrower(shared, scalar).ok_or_else(|| {
            let detail = format!(
                "one key column `{name}` cannot serve both: it is {} to `{first_group}` and {} to \
                 `{group}`; read them in requests of their own",
                first.name(),
                scalar.name()
            );
            Problem::new(Code::WrongType, detail)
        })?;
    }
    Ok(Some(shared))
}

/// The type that keys must have to fit both uses; None where none does, as for a Text and a number.
const fn narrower(left: Scalar, right: Scalar) -> Option<Scalar> {
    match (left, right) {
        (Scalar::Text, Scalar::Text) => Some(Scalar::Text),
        (Scalar::Long, Scalar::Long) => Some(Scalar::Long),
        (Scalar::Integer | Scalar::Long, Scalar::Integer | Scalar::Long) => Some(Scalar::Integer),
        _ => None,
    }
}

pub(super) fn all_fields(group: &Group) -> Vec<usize> {
    (0..group.current().fields.len()).collect()
}

pub(super) fn field_position(group: &Group, name: &str) -> Option<usize> {
    group.current().fields.iter().position(|field| field.name == name)
}

fn find_group(catalog: &Catalog, name: &Name<'_>) -> Result<Arc<Group>> {
    catalog.group(&name.text).cloned().ok_or_else(|| {
        let known = catalog.groups().iter().map(|group| group.name.as_str());
        let detail = format!("no feature group `{}`", echo(&name.text));
        Problem::new(Code::UnknownGroup, detail).at(name.offset).nearest(nearest(&name.text, known))
    })
}

fn find_service(catalog: &Catalog, name: &Name<'_>) -> Result<Arc<Service>> {
    catalog.service(&name.text).cloned().ok_or_else(|| {
        let detail = format!("no feature service `{}`", echo(&name.text));
        let near = nearest(&name.text, catalog.service_names());
        Problem::new(Code::UnknownService, detail).at(name.offset).nearest(near)
    })
}

fn find_fields(group: &Group, names: &[Name<'_>]) -> Result<Vec<usize>> {
    let mut taken = FieldSet::default();
    let mut positions = Vec::with_capacity(names.len());
    for (item, name) in names.iter().enumerate() {
        let position = find_field(group, name).map_err(|problem| problem.item(item))?;
        if taken.contains(position) {
            let detail = format!("field `{}` is named twice", name.text);
            return Err(Problem::new(Code::DuplicateField, detail).at(name.offset).item(item));
        }
        taken.insert(position);
        positions.push(position);
    }
    Ok(positions)
}

fn find_field(group: &Group, name: &Name<'_>) -> Result<usize> {
    field_position(group, &name.text).ok_or_else(|| {
        let known = group.current().fields.iter().map(|field| field.name.as_str());
        if name.text == "*" {
            let detail = "`\"*\"` stands for all fields in place of the list, not in it: write \
                          `\"fields\":\"*\"`, or leave `fields` out";
            return Problem::new(Code::UnknownField, detail).at(name.offset);
        }
        let shown = echo(&name.text);
        let detail = if group.keys.iter().any(|key| key.name == name.text) {
            format!("`{shown}` is a key field of `{}`; only value fields are read", group.name)
        } else {
            format!("`{}` has no field `{shown}`", group.name)
        };
        Problem::new(Code::UnknownField, detail).at(name.offset).nearest(nearest(&name.text, known))
    })
}

fn check_limit(group: &Group, limit: Option<(i64, usize)>) -> Result<usize> {
    let most = usize::try_from(group.max_events).unwrap_or(usize::MAX);
    let Some((limit, offset)) = limit else { return Ok(most) };
    let refuse = |detail: String| Err(Problem::new(Code::BadLimit, detail).at(offset));
    if group.feature_type == FeatureType::Object {
        return refuse(format!("`limit` is for a History; `{}` is an Object", group.name));
    }
    match usize::try_from(limit) {
        Ok(limit) if (1..=most).contains(&limit) => Ok(limit),
        _ => refuse(format!("1 to {most} events were expected for `{}`, got {limit}", group.name)),
    }
}

pub(super) fn missing_key(name: &str, group: &str, offset: usize) -> Problem {
    let detail = format!("key column `{name}` is missing; `{group}` needs it");
    Problem::new(Code::MissingKey, detail).at(offset)
}

fn unknown<'n>(
    code: Code,
    detail: String,
    name: &Name<'_>,
    known: impl Iterator<Item = &'n str>,
) -> Problem {
    Problem::new(code, detail).at(name.offset).under(&name.text).nearest(nearest(&name.text, known))
}

fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
