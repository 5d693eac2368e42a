//! The compiled registry: what the catalog document says, checked and indexed once a generation.
//!
//! The document is written by `headrace.registry.catalog`; unknown members are ignored so that an
//! older process can still read what a newer `apply` published.

use std::collections::HashMap;
use std::sync::Arc;
use std::{mem, thread};

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::nearest::unknown;
use crate::schema::{Field, FieldType, RecordSchema, Scalar};

/// The layout of the document that this crate reads.
const DOCUMENT_FORMAT: u32 = 1;

/// Object or History.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum FeatureType {
    /// One current record per key.
    Object,
    /// The newest N events per key.
    History,
}

/// One key field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyField {
    /// Name in YAML and JSON.
    pub name: String,
    /// Text, Integer or Long.
    pub scalar: Scalar,
}

/// One feature group, compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// First four bytes of every key.
    pub id: u32,
    /// `domain::name`
    pub name: String,
    /// Object or History.
    pub feature_type: FeatureType,
    /// Key fields in schema order.
    pub keys: Vec<KeyField>,
    /// Every schema ever registered, oldest first; the last one is current. Never empty.
    pub schemas: Vec<Arc<RecordSchema>>,
    /// Rows vanish at event time + ttl.
    pub ttl_ms: Option<i64>,
    /// Older rows are STALE.
    pub max_age_ms: Option<i64>,
    /// Events kept per History key.
    pub max_events: u32,
    /// Redis block ttl; 0 is off.
    pub cache_ttl_ms: i64,
    /// In-process ttl; 0 is off.
    pub local_ttl_ms: i64,
    /// Its name to Feast: the declared one, else `domain__name`.
    pub feast_name: String,
    /// Names to Feast of the current value fields, in schema order.
    pub feast_fields: Vec<String>,
    current: Arc<RecordSchema>,
}

impl Group {
    /// The newest schema.
    #[must_use]
    pub const fn current(&self) -> &Arc<RecordSchema> {
        &self.current
    }

    /// The schema of a fingerprint, if this group ever had it.
    #[must_use]
    pub fn schema(&self, fingerprint: u64) -> Option<&Arc<RecordSchema>> {
        self.schemas.iter().rev().find(|schema| schema.fingerprint == fingerprint)
    }
}

/// One read of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRead {
    /// The group that is read.
    pub group: Arc<str>,
    /// Value fields in the order asked for; None is all.
    pub fields: Option<Vec<String>>,
    /// Name of the result.
    pub alias: Option<String>,
    /// Request key of each key field, in the group's key order.
    pub request_keys: Vec<String>,
    /// Most events of a History.
    pub limit: Option<u32>,
}

/// A named set of reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// `name-vN`
    pub name: String,
    /// Reads in declared order.
    pub reads: Vec<ServiceRead>,
    /// Its name to Feast, where one is declared.
    pub feast_name: Option<String>,
}

/// One generation of the registry.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Generation number, 0 when nothing was published yet.
    pub generation: u64,
    groups: Vec<Arc<Group>>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<u32, usize>,
    by_fingerprint: HashMap<u64, (usize, Arc<RecordSchema>)>,
    services: HashMap<String, Arc<Service>>,
    groups_by_feast_name: HashMap<String, usize>,
    services_by_feast_name: HashMap<String, Arc<Service>>,
}

/// A catalog of so many groups is freed aside: 10,000 take a third of a second.
const FREED_ASIDE_GROUPS_MIN: usize = 32;

impl Drop for Catalog {
    /// Whoever lets go of the last reference may have requests to answer.
    fn drop(&mut self) {
        if self.groups.len() < FREED_ASIDE_GROUPS_MIN {
            return;
        }
        let parts = (
            mem::take(&mut self.groups),
            mem::take(&mut self.by_name),
            mem::take(&mut self.by_id),
            mem::take(&mut self.by_fingerprint),
            mem::take(&mut self.services),
            mem::take(&mut self.groups_by_feast_name),
            mem::take(&mut self.services_by_feast_name),
        );
        // Where no thread can be had, they are freed here.
        drop(thread::Builder::new().name("catalog-free".to_owned()).spawn(move || drop(parts)));
    }
}

impl Catalog {
    /// Compiles a catalog document.
    pub fn from_json(document: &[u8]) -> Result<Self> {
        let document: DocumentText = serde_json::from_slice(document)
            .map_err(|error| Error::new(Kind::Schema, format!("catalog document: {error}")))?;
        if document.format != DOCUMENT_FORMAT {
            return Err(Error::new(
                Kind::Schema,
                format!(
                    "catalog document has format {}, this version reads {DOCUMENT_FORMAT}; \
                     upgrade this process",
                    document.format
                ),
            ));
        }
        let mut catalog = Self::default();
        catalog.set_generation(document.generation);
        for text in document.groups {
            let name = text.name.clone();
            catalog.add(text.compile().map_err(|error| error.under(&name))?)?;
        }
        for text in document.services {
            let name = text.name.clone();
            let service = text.compile(&catalog).map_err(|error| error.under(&name))?;
            catalog.services.insert(name, Arc::new(service));
        }
        catalog.index_feast_names();
        Ok(catalog)
    }

    const fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    fn add(&mut self, group: Group) -> Result<()> {
        let position = self.groups.len();
        if self.by_id.insert(group.id, position).is_some() {
            return Err(Error::new(Kind::Schema, format!("group id {} is used twice", group.id)));
        }
        for schema in &group.schemas {
            let entry = (position, Arc::clone(schema));
            if self.by_fingerprint.insert(schema.fingerprint, entry).is_some() {
                return Err(Error::new(
                    Kind::Schema,
                    format!("two schemas share fingerprint {:016x}", schema.fingerprint),
                ));
            }
        }
        self.by_name.insert(group.name.clone(), position);
        self.groups.push(Arc::new(group));
        Ok(())
    }

    fn index_feast_names(&mut self) {
        let names = |group: &Arc<Group>| [group.feast_name.clone(), feast_form(&group.name)];
        // A declared name stands before the one that another group's name would make.
        for form in 0..2 {
            for (position, group) in self.groups.iter().enumerate() {
                let name = names(group).into_iter().nth(form).unwrap_or_default();
                self.groups_by_feast_name.entry(name).or_insert(position);
            }
        }
        for service in self.services.values() {
            if let Some(name) = &service.feast_name {
                self.services_by_feast_name.insert(name.clone(), Arc::clone(service));
            }
        }
    }

    /// All groups in document order.
    #[must_use]
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// A group by name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(*self.by_name.get(name)?)
    }

    /// A group by name; when there is none, the error names the nearest one.
    pub fn find_group(&self, name: &str) -> Result<&Arc<Group>> {
        self.group(name).ok_or_else(|| {
            let names = self.groups.iter().map(|group| group.name.as_str());
            Error::new(Kind::UnknownGroup, unknown("feature group", name, names))
        })
    }

    /// A group by the id that opens its keys.
    #[must_use]
    pub fn group_by_id(&self, id: u32) -> Option<&Arc<Group>> {
        self.groups.get(*self.by_id.get(&id)?)
    }

    /// A schema by fingerprint, with the group that registered it.
    #[must_use]
    pub fn schema(&self, fingerprint: u64) -> Option<(&Arc<Group>, &Arc<RecordSchema>)> {
        let (position, schema) = self.by_fingerprint.get(&fingerprint)?;
        Some((self.groups.get(*position)?, schema))
    }

    /// A service by name.
    #[must_use]
    pub fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// A group as Feast's clients call it: its Feast name, `domain__name` or `domain::name`.
    #[must_use]
    pub fn feast_group(&self, name: &str) -> Option<&Arc<Group>> {
        let position = self.groups_by_feast_name.get(name).or_else(|| self.by_name.get(name))?;
        self.groups.get(*position)
    }

    /// A service as Feast's clients call it: its Feast name or its own.
    #[must_use]
    pub fn feast_service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services_by_feast_name.get(name).or_else(|| self.services.get(name))
    }

    /// Names of all services, in no order.
    pub fn service_names(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }
}

/// A group's name with what Feast takes for the start of a field's name replaced.
fn feast_form(name: &str) -> String {
    name.replace("::", "__")
}

#[derive(Deserialize)]
struct DocumentText {
    format: u32,
    generation: u64,
    #[serde(default)]
    groups: Vec<GroupText>,
    #[serde(default)]
    services: Vec<ServiceText>,
}

#[derive(Deserialize)]
struct GroupText {
    id: u32,
    name: String,
    feature_type: FeatureType,
    keys: Vec<KeyText>,
    schemas: Vec<SchemaText>,
    ttl_ms: Option<i64>,
    max_age_ms: Option<i64>,
    max_events: u32,
    cache: CacheText,
    feast_name: Option<String>,
}

#[derive(Deserialize)]
struct CacheText {
    ttl_ms: i64,
    local_ttl_ms: i64,
}

#[derive(Deserialize)]
struct KeyText {
    name: String,
    #[serde(rename = "type")]
    scalar: String,
}

#[derive(Deserialize)]
struct SchemaText {
    ordinal: u32,
    fields: Vec<FieldText>,
}

#[derive(Deserialize)]
struct FieldText {
    id: u16,
    name: String,
    #[serde(rename = "type")]
    field_type: String,
    nullable: bool,
    #[serde(default)]
    default: serde_json::Value,
    feast_name: Option<String>,
}

#[derive(Deserialize)]
struct ServiceText {
    name: String,
    reads: Vec<ServiceReadText>,
    feast_name: Option<String>,
}

#[derive(Deserialize)]
struct ServiceReadText {
    feature_group: String,
    fields: Option<Vec<String>>,
    alias: Option<String>,
    #[serde(default)]
    keys: HashMap<String, String>,
    limit: Option<u32>,
}

impl GroupText {
    fn compile(self) -> Result<Group> {
        let keys = self.keys.into_iter().map(KeyText::compile).collect::<Result<Vec<_>>>()?;
        let feast_field =
            |field: &FieldText| field.feast_name.as_ref().unwrap_or(&field.name).clone();
        let newest = self.schemas.last().map_or(&[][..], |schema| schema.fields.as_slice());
        let feast_fields = newest.iter().map(feast_field).collect();
        let feast_name = self.feast_name.unwrap_or_else(|| feast_form(&self.name));
        let schemas = self
            .schemas
            .into_iter()
            .map(|text| text.compile(&self.name).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        let current = schemas
            .last()
            .cloned()
            .ok_or_else(|| Error::new(Kind::Schema, "a group needs at least one schema"))?;
        if keys.is_empty() || current.fields.is_empty() {
            return Err(Error::new(Kind::Schema, "a group needs a key field and a value field"));
        }
        Ok(Group {
            id: self.id,
            name: self.name,
            feature_type: self.feature_type,
            keys,
            schemas,
            ttl_ms: self.ttl_ms,
            max_age_ms: self.max_age_ms,
            max_events: self.max_events,
            cache_ttl_ms: self.cache.ttl_ms,
            local_ttl_ms: self.cache.local_ttl_ms,
            feast_name,
            feast_fields,
            current,
        })
    }
}

impl KeyText {
    fn compile(self) -> Result<KeyField> {
        match Scalar::parse(&self.scalar) {
            Some(scalar @ (Scalar::Text | Scalar::Integer | Scalar::Long)) => {
                Ok(KeyField { name: self.name, scalar })
            }
            _ => Err(Error::new(Kind::Schema, format!("a key cannot be `{}`", self.scalar))
                .under(&self.name)),
        }
    }
}

impl SchemaText {
    fn compile(self, group: &str) -> Result<RecordSchema> {
        let fields = self
            .fields
            .into_iter()
            .map(|text| {
                let field_type =
                    FieldType::parse(&text.field_type).map_err(|error| error.under(&text.name))?;
                if text.default.is_null() && !text.nullable {
                    let message = "a field that is not nullable needs a default";
                    return Err(Error::new(Kind::Schema, message).under(&text.name));
                }
                Ok(Field {
                    id: text.id,
                    name: text.name,
                    field_type,
                    nullable: text.nullable,
                    default: text.default,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        RecordSchema::new(group, self.ordinal, fields)
    }
}

impl ServiceText {
    fn compile(self, catalog: &Catalog) -> Result<Service> {
        let reads = self.reads.into_iter().map(|text| text.compile(catalog)).collect::<Result<_>>();
        Ok(Service { name: self.name, reads: reads?, feast_name: self.feast_name })
    }
}

impl ServiceReadText {
    fn compile(self, catalog: &Catalog) -> Result<ServiceRead> {
        let group = catalog.group(&self.feature_group).ok_or_else(|| {
            Error::new(Kind::Schema, format!("unknown feature group `{}`", self.feature_group))
        })?;
        let request_keys = group
            .keys
            .iter()
            .map(|key| self.keys.get(&key.name).unwrap_or(&key.name).clone())
            .collect();
        Ok(ServiceRead {
            group: group.name.as_str().into(),
            fields: self.fields,
            alias: self.alias,
            request_keys,
            limit: self.limit,
        })
    }
}
