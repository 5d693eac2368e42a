//! From Feast's names to a [`Plan`]: one read a group of the references, or a read of a service.

use std::sync::Arc;

use super::layout::{Layout, Output, tail, warning};
use super::{Request, Target};
use crate::catalog::{Catalog, Group, Service, ServiceRead};
use crate::nearest::nearest;
use crate::read::Limits;
use crate::read::compile::{Draft, all_fields, field_position, missing_key, shared_scalar};
use crate::read::counters::Counters;
use crate::read::plan::{Accept, ColumnPlan, Plan};
use crate::read::problem::{Code, Problem, echo};
use crate::read::request::{Name, Options, Result};
use crate::schema::Scalar;

/// One read before its key columns are known.
struct Wanted {
    group: Arc<Group>,
    alias: Option<String>,
    /// Positions in the current schema.
    fields: Vec<usize>,
    /// The join key of each key field.
    join_keys: Vec<String>,
    limit: usize,
}

/// All reads and the columns that they make, with their names.
#[derive(Default)]
struct Columns {
    wanted: Vec<Wanted>,
    outputs: Vec<(Output, String)>,
}

impl Request<'_> {
    /// Resolves the request.
    pub fn compile(&self, catalog: &Catalog, limits: &Limits, counters: &Counters) -> Result<Plan> {
        let mut columns = Columns::default();
        let at = match &self.target {
            Target::Service(name) => {
                columns.add_service(find_service(catalog, name)?, catalog, self.full_names)?;
                (name.offset, "feature_service")
            }
            Target::Features(references) => {
                for (item, reference) in references.iter().enumerate() {
                    columns
                        .add_reference(catalog, reference, self.full_names)
                        .map_err(|problem| problem.item(item).under("features"))?;
                }
                (references.first().map_or(0, |first| first.offset), "features")
            }
        };
        columns.check(limits).map_err(|problem| problem.at(at.0).under(at.1))?;
        self.plan(columns, catalog, counters)
    }

    fn plan(&self, columns: Columns, catalog: &Catalog, counters: &Counters) -> Result<Plan> {
        // Feast's clients drop statuses, so a row that cannot be served fails the whole (semantics 16).
        let options = Options { strict: true, ..Options::default() };
        let (reads, accept) = (Vec::new(), Accept::Feast);
        let mut draft = Draft { catalog, accept, options, counters, reads, columns: Vec::new() };
        let mut ignored: Vec<&str> = self.ignored.iter().map(String::as_str).collect();
        for column in &self.entities.columns {
            let name = &column.name;
            let scalar = columns.scalar_of(&name.text);
            match scalar.map_err(|it| it.at(name.offset).under(&name.text).under("entities"))? {
                None => ignored.push(&name.text),
                Some(scalar) => draft.columns.push(ColumnPlan {
                    scalar,
                    name: name.text.clone().into_owned(),
                    read: None,
                }),
            }
        }
        let versions: Vec<(String, u32)> = columns.versions();
        for wanted in columns.wanted {
            let position = |join_key: &String| {
                let found = draft.columns.iter().position(|column| column.name == *join_key);
                found.ok_or_else(|| {
                    let offset = self.entities.offset;
                    missing_key(join_key, &wanted.group.name, offset).under("entities")
                })
            };
            let positions = wanted.join_keys.iter().map(position).collect::<Result<_>>()?;
            let Wanted { group, alias, fields, limit, .. } = wanted;
            let planned = draft.plan(group, alias, fields, limit, positions);
            draft.reads.push(planned);
        }
        let keys = draft.columns.iter().map(|column| column.name.as_str());
        let names = keys.chain(columns.outputs.iter().map(|(_, name)| name.as_str()));
        let layout = Layout {
            tail: tail(names, self.versions.then_some(&versions)),
            outputs: columns.outputs.iter().map(|(output, _)| *output).collect(),
            warning: warning(ignored.into_iter()),
        };
        Ok(Plan {
            generation: catalog.generation,
            reads: draft.reads,
            columns: draft.columns,
            options,
            accept,
            broadcast: false,
            feast: Some(layout),
            arrow: None,
        })
    }
}

impl Columns {
    fn add_reference(&mut self, catalog: &Catalog, reference: &Name<'_>, full: bool) -> Result<()> {
        // The last colon: a group's own name has two.
        let Some((group_name, field_name)) = reference.text.rsplit_once(':') else {
            let shown = echo(&reference.text);
            let detail = format!("`group:field` was expected, got `{shown}`");
            return Err(Problem::new(Code::BadOption, detail).at(reference.offset));
        };
        let group = find_group(catalog, group_name, reference.offset)?;
        let position = find_field(&group, field_name, reference.offset)?;
        let name = shown_name(&group.feast_name, field_name, full);
        let known = self.wanted.iter().position(|wanted| wanted.group.id == group.id);
        let read = known.unwrap_or_else(|| {
            self.wanted.push(Wanted {
                join_keys: group.keys.iter().map(|key| key.name.clone()).collect(),
                limit: most_events(&group),
                fields: Vec::new(),
                alias: None,
                group,
            });
            self.wanted.len().saturating_sub(1)
        });
        let Some(wanted) = self.wanted.get_mut(read) else { return Ok(()) };
        self.outputs.push((Output { read, field: wanted.fields.len() }, name));
        wanted.fields.push(position);
        Ok(())
    }

    fn add_service(&mut self, service: &Service, catalog: &Catalog, full: bool) -> Result<()> {
        for read in &service.reads {
            self.add_service_read(service, read, catalog, full)?;
        }
        Ok(())
    }

    fn add_service_read(
        &mut self,
        service: &Service,
        read: &ServiceRead,
        catalog: &Catalog,
        full: bool,
    ) -> Result<()> {
        let gone = || {
            let detail = format!("service `{}` reads what `{}` lacks", service.name, read.group);
            Problem::new(Code::UnknownService, detail).under("feature_service")
        };
        let group = catalog.group(&read.group).cloned().ok_or_else(gone)?;
        let fields = match &read.fields {
            None => all_fields(&group),
            Some(names) => {
                let found = names.iter().map(|name| field_position(&group, name));
                found.collect::<Option<_>>().ok_or_else(gone)?
            }
        };
        let prefix = read.alias.as_ref().unwrap_or(&group.feast_name);
        for (field, position) in fields.iter().enumerate() {
            let own = group.feast_fields.get(*position).map_or("", String::as_str);
            let output = Output { read: self.wanted.len(), field };
            self.outputs.push((output, shown_name(prefix, own, full)));
        }
        let limit = read.limit.and_then(|limit| usize::try_from(limit).ok());
        self.wanted.push(Wanted {
            alias: read.alias.clone(),
            fields,
            join_keys: read.request_keys.clone(),
            limit: limit.map_or(most_events(&group), |limit| limit.min(most_events(&group))),
            group,
        });
        Ok(())
    }

    /// Names that are there twice could not be told apart in the answer.
    fn check(&self, limits: &Limits) -> Result<()> {
        if self.wanted.len() > limits.reads_max {
            let detail = format!("a request reads at most {} groups", limits.reads_max);
            return Err(Problem::new(Code::TooManyReads, detail));
        }
        let mut names: Vec<&str> = self.outputs.iter().map(|(_, name)| name.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find_map(|pair| match pair {
            [left, right] if left == right => Some(*left),
            _ => None,
        });
        twice.map_or(Ok(()), |name| {
            let detail = format!(
                "two of the features would be called `{name}`; ask for each once, and set \
                 `full_feature_names` where groups share the names of fields"
            );
            Err(Problem::new(Code::DuplicateField, detail))
        })
    }

    /// The type that a join key must have to fit every read that uses it; None when none uses it.
    fn scalar_of(&self, join_key: &str) -> Result<Option<Scalar>> {
        let uses = self.wanted.iter().flat_map(|wanted| {
            let keys = wanted.group.keys.iter().zip(&wanted.join_keys);
            let used = keys.filter(|(_, name)| *name == join_key);
            used.map(|(key, _)| (wanted.group.feast_name.as_str(), key.scalar))
        });
        shared_scalar(join_key, uses)
    }

    /// The schema ordinal of each group, under its Feast name.
    fn versions(&self) -> Vec<(String, u32)> {
        let of =
            |wanted: &Wanted| (wanted.group.feast_name.clone(), wanted.group.current().ordinal);
        let mut versions: Vec<(String, u32)> = Vec::new();
        for version in self.wanted.iter().map(of) {
            if !versions.contains(&version) {
                versions.push(version);
            }
        }
        versions
    }
}

fn shown_name(group: &str, field: &str, full: bool) -> String {
    if full { format!("{group}__{field}") } else { field.to_owned() }
}

fn most_events(group: &Group) -> usize {
    usize::try_from(group.max_events).unwrap_or(usize::MAX)
}

fn find_service<'c>(catalog: &'c Catalog, name: &Name<'_>) -> Result<&'c Service> {
    catalog.feast_service(&name.text).map(|service| &**service).ok_or_else(|| {
        let detail = format!("no feature service `{}`", echo(&name.text));
        let near = nearest(&name.text, catalog.service_names());
        Problem::new(Code::UnknownService, detail)
            .at(name.offset)
            .nearest(near)
            .under("feature_service")
    })
}

fn find_group(catalog: &Catalog, name: &str, offset: usize) -> Result<Arc<Group>> {
    catalog.feast_group(name).cloned().ok_or_else(|| {
        let known = catalog.groups().iter().map(|group| group.feast_name.as_str());
        let detail = format!("no feature group `{}`", echo(name));
        Problem::new(Code::UnknownGroup, detail).at(offset).nearest(nearest(name, known))
    })
}

fn find_field(group: &Group, name: &str, offset: usize) -> Result<usize> {
    let found = group.feast_fields.iter().position(|known| known == name);
    found.or_else(|| field_position(group, name)).ok_or_else(|| {
        let known = group.feast_fields.iter().map(String::as_str);
        let detail = format!("`{}` has no feature `{}`", group.feast_name, echo(name));
        Problem::new(Code::UnknownField, detail).at(offset).nearest(nearest(name, known))
    })
}
