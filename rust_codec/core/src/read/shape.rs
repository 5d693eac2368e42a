//! Plans remembered by the shape of a request: every byte of the body but its key lists and its
//! deadline.
//!
//! A body that was checked and planned once is cut into the literal text around those holes. A later
//! body with the same literals and a plain list in each hole is the same request with other keys:
//! checking it again would end in the same plan. So such a body is matched with `memcmp` and a scan of
//! its keys, and only what does not match is parsed. Literals are compared, not just their hash.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::Limits;
use super::columns::{Column, skip_space};
use super::plan::{Accept, Plan};
use super::request::{DEADLINE_MAX_MS, Deadline, KeyColumn, KeyColumns, Request, Target};
use memchr::memmem::Finder;

/// Most shapes of each of the two halves.
const HALF_SHAPES_MAX: usize = 2_048;
/// Most bytes of each half.
const HALF_BYTES_MAX: usize = 32 << 20;
/// Longest literal text of a shape that is remembered.
const LITERAL_BYTES_MAX: usize = 64 << 10;
/// Most shapes that share a hash.
const BUCKET_SHAPES_MAX: usize = 8;

const DEADLINE: &[u8] = br#""deadline_ms""#;

/// What stands between two literals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hole {
    Column(usize),
    Deadline,
}

/// The literals of a body and the plan they end in.
#[derive(Debug)]
pub struct Shape {
    /// Each literal with the hole after it.
    steps: Vec<(Box<[u8]>, Hole)>,
    last: Box<[u8]>,
    /// What it asks for.
    pub plan: Arc<Plan>,
    /// The deadline of the body it was made from, which stands in a hole.
    has_deadline: bool,
}

/// Remembered shapes: a young and an old half. What is used moves to the young one; when that is
/// full it becomes the old one and what was old is forgotten.
#[derive(Debug, Default)]
pub struct Shapes {
    young: Half,
    old: Half,
}

/// Finds and hashes the literals of bodies.
#[derive(Debug)]
pub struct ShapeHash {
    keys: Finder<'static>,
    entities: Finder<'static>,
    deadline: Finder<'static>,
}

#[derive(Debug, Default)]
struct Half {
    buckets: HashMap<u64, Vec<Arc<Shape>>, BuildHasherDefault<Hashed>>,
    count: usize,
    bytes: usize,
}

/// Takes a hash for what it is. Who makes many that share a place makes a search no longer than the
/// few shapes that are remembered.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = mix(self.0, xxhash_rust::xxh3::xxh3_64(bytes));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl Default for ShapeHash {
    fn default() -> Self {
        Self {
            keys: Finder::new(br#""keys""#),
            entities: Finder::new(br#""entities""#),
            deadline: Finder::new(DEADLINE),
        }
    }
}

impl Shapes {
    /// Number of remembered shapes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.young.count.saturating_add(self.old.count)
    }

    /// Whether none is remembered.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Candidates for a hash, the young ones first; an old one becomes young.
    pub fn candidates(&mut self, hash: u64) -> &[Arc<Shape>] {
        if !self.young.buckets.contains_key(&hash)
            && let Some(bucket) = self.old.take(hash)
        {
            for shape in bucket {
                self.insert(hash, shape);
            }
        }
        self.young.buckets.get(&hash).map_or(&[], Vec::as_slice)
    }

    /// Remembers a shape.
    pub fn insert(&mut self, hash: u64, shape: Arc<Shape>) {
        if self.young.count >= HALF_SHAPES_MAX || self.young.bytes >= HALF_BYTES_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        let bucket = self.young.buckets.entry(hash).or_default();
        // Equal hashes are chance or malice; the latest shape stays.
        if bucket.len() >= BUCKET_SHAPES_MAX {
            bucket.pop();
        } else {
            self.young.count = self.young.count.saturating_add(1);
        }
        self.young.bytes = self.young.bytes.saturating_add(shape.weight());
        bucket.push(shape);
    }
}

impl ShapeHash {
    /// A hash of the literals, as far as they can be told from key lists without parsing, but for a
    /// deadline before the first or behind the last list. None when the body has no key list.
    ///
    /// Where this takes other text for a key list, or part of one for a literal, a plan is only
    /// found less often: what decides is the comparison of [`Shape::matches`].
    #[must_use]
    pub fn of(&self, body: &[u8], accept: Accept) -> Option<u64> {
        let start = self.first_list(body, accept)?;
        let (opening, mut rest) = body.split_at_checked(start)?;
        let mut hash = mix(accept as u64, self.hash_literal(opening));
        loop {
            rest = skip_list(rest)?;
            // A comma: another column of the same `keys`.
            let next = match skip_space(rest).first() {
                Some(b',') => memchr::memchr(b'[', rest),
                _ => self.first_list(rest, accept),
            };
            let Some(next) = next else { break };
            let (literal, list) = rest.split_at_checked(next)?;
            hash = mix(hash, xxhash_rust::xxh3::xxh3_64(literal));
            rest = list;
        }
        Some(mix(hash, self.hash_literal(rest)))
    }

    /// Where the first key list opens, as far as that can be told without parsing.
    fn first_list(&self, body: &[u8], accept: Accept) -> Option<usize> {
        let member = if accept == Accept::Feast { &self.entities } else { &self.keys };
        let keys = member.find(body)?;
        memchr::memchr(b'[', body.get(keys..)?).map(|step| keys.saturating_add(step))
    }

    fn hash_literal(&self, literal: &[u8]) -> u64 {
        let hash = xxhash_rust::xxh3::xxh3_64;
        let Some(at) = self.deadline.find(literal) else { return hash(literal) };
        let (before, after) = literal.split_at_checked(at).unwrap_or_default();
        let after = after.get(DEADLINE.len()..).unwrap_or_default();
        let number = |byte: &u8| !byte.is_ascii_digit() && !matches!(byte, b':' | b' ');
        let end = after.iter().position(number).unwrap_or(after.len());
        hash(before) ^ hash(after.get(end..).unwrap_or_default()).rotate_left(31)
    }

    /// Cuts a checked body into its shape; None when it could not be found again or is too long.
    #[must_use]
    pub fn cut<'r, 'a: 'r>(
        &self,
        body: &[u8],
        columns: impl Iterator<Item = &'r KeyColumn<'a>>,
        deadline: Option<Deadline>,
        plan: &Arc<Plan>,
    ) -> Option<Shape> {
        let mut holes: Vec<(usize, usize, Hole)> = columns
            .enumerate()
            .map(|(index, column)| (column.start, column.end, Hole::Column(index)))
            .collect();
        if holes.first().map(|hole| hole.0) != self.first_list(body, plan.accept) {
            return None;
        }
        let deadline = deadline.map(|at| (at.start, at.end, Hole::Deadline));
        holes.extend(deadline);
        holes.sort_unstable_by_key(|hole| hole.0);
        let mut steps = Vec::with_capacity(holes.len());
        let (mut from, mut total) = (0, 0_usize);
        for (start, end, hole) in holes {
            let literal = body.get(from..start)?;
            total = total.saturating_add(literal.len());
            steps.push((literal.into(), hole));
            from = end;
        }
        let last = body.get(from..)?;
        if total.saturating_add(last.len()) > LITERAL_BYTES_MAX {
            return None;
        }
        let plan = Arc::clone(plan);
        Some(Shape { steps, last: last.into(), plan, has_deadline: deadline.is_some() })
    }
}

/// The key columns of a request in the order of the body.
pub fn columns<'r, 'a>(request: &'r Request<'a>) -> impl Iterator<Item = &'r KeyColumn<'a>> {
    let (reads, service): (&[_], Option<&KeyColumns<'_>>) = match &request.target {
        Target::Reads(reads) => (reads, None),
        Target::Service(_, keys) => (&[], Some(keys)),
    };
    let keys = reads.iter().map(|read| &read.keys).chain(service);
    keys.flat_map(|keys| &keys.columns)
}

/// The text behind a list of plain values; None when it does not end.
fn skip_list(list: &[u8]) -> Option<&[u8]> {
    let mut rest = list.strip_prefix(b"[")?;
    loop {
        let at = memchr::memchr3(b']', b'"', b'[', rest)?;
        let (found, after) = rest.get(at..)?.split_first()?;
        rest = match found {
            b']' => return Some(after),
            b'"' => skip_text(after)?,
            _ => after,
        };
    }
}

/// The text behind a string whose quote was taken.
fn skip_text(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    loop {
        let at = memchr::memchr2(b'"', b'\\', rest)?;
        let (found, after) = rest.get(at..)?.split_first()?;
        rest = match found {
            b'"' => return Some(after),
            _ => after.get(1..)?,
        };
    }
}

/// Order matters: the same literals in another order are another shape.
const fn mix(hash: u64, next: u64) -> u64 {
    (hash ^ next).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

impl Half {
    fn take(&mut self, hash: u64) -> Option<Vec<Arc<Shape>>> {
        let bucket = self.buckets.remove(&hash)?;
        self.count = self.count.saturating_sub(bucket.len());
        for shape in &bucket {
            self.bytes = self.bytes.saturating_sub(shape.weight());
        }
        Some(bucket)
    }
}

impl Shape {
    fn weight(&self) -> usize {
        let literals = self.steps.iter().map(|(literal, _)| literal.len());
        literals.fold(self.last.len(), usize::saturating_add).saturating_add(self.plan.weight())
    }

    /// Whether a body has this shape and plain keys: then the keys are in `columns`, and the
    /// deadline, where there is one, is returned.
    pub fn matches(
        &self,
        body: &[u8],
        accept: Accept,
        columns: &mut Vec<Column>,
        limits: &Limits,
    ) -> Option<Option<i64>> {
        if accept != self.plan.accept {
            return None;
        }
        if columns.len() < self.plan.columns.len() {
            columns.resize_with(self.plan.columns.len(), Column::default);
        }
        let mut rest = body;
        let mut deadline = None;
        for (literal, hole) in &self.steps {
            rest = rest.strip_prefix(&**literal)?;
            let length = match hole {
                Hole::Column(index) => {
                    let scalar = self.plan.columns.get(*index)?.scalar;
                    columns.get_mut(*index)?.scan(rest, scalar, limits.keys_max)?
                }
                Hole::Deadline => {
                    let (value, length) = plain_deadline(rest)?;
                    deadline = Some(value);
                    length
                }
            };
            rest = rest.get(length..)?;
        }
        (*rest == *self.last && deadline.is_some() == self.has_deadline).then_some(deadline)
    }
}

/// A deadline without sign or leading zero, and its length.
fn plain_deadline(bytes: &[u8]) -> Option<(i64, usize)> {
    let length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let digits = bytes.get(..length).filter(|digits| !digits.starts_with(b"0"))?;
    let value: i64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (1..=DEADLINE_MAX_MS).contains(&value).then_some((value, length))
}
