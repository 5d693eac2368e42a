//! One request from body to response.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::answer::{self, Json, Writer};
use super::arrow::{self, Arrow};
use super::coding::{self, Coding};
use super::columns::Column;
use super::counters::{Counters, Outcome, Tally};
use super::envelope::{self, Envelope};
use super::feast::{self, Feast};
use super::head::{self, Head};
use super::keys::Keys;
use super::plan::{Accept, Plan};
use super::problem::{Code, Problem, RETRY_AFTER_SECONDS};
use super::request::{Deadline, KeyColumn, Request, Result};
use super::row::{Row, RowError, RowSource, Rows, SourceRows, StaleCatalog};
use super::shape::{ShapeHash, Shapes, columns};
use super::statuses::Status;
use super::{Limits, plan::PlannedRead};
use crate::catalog::Catalog;

/// Most bytes that a room keeps between requests: so many rooms are kept as requests wait at once.
const ROOM_BYTES_MAX: usize = 1 << 16;
/// Room that is left for a head; the longest one takes some 300 bytes.
const HEAD_BYTES: usize = 512;
/// Most rooms that are kept.
const ROOMS_MAX: usize = 64;
/// Most bytes that a press keeps between answers.
const PRESS_BYTES_MAX: usize = 1 << 20;
/// Most presses that are kept: one is in use for each thread that answers.
const PRESSES_MAX: usize = 2;

/// One request as the transport hands it over.
#[derive(Debug, Clone, Copy)]
pub struct ReadCall<'a> {
    /// The request's body.
    pub body: &'a [u8],
    /// What the caller accepts.
    pub accept: Accept,
    /// How the caller would have the answer coded.
    pub coding: Coding,
    /// Milliseconds since the epoch.
    pub now_ms: i64,
    /// Repeated in the response.
    pub request_id: &'a [u8],
    /// Whether the connection stays open.
    pub keep_alive: bool,
    /// The catalog was loaded anew for this request: rows of a schema that it still lacks are
    /// UNAVAILABLE.
    pub reloaded: bool,
}

/// What answers reads: a catalog in force, the plans made from it, and totals.
#[derive(Debug, Default)]
pub struct Engine {
    limits: Limits,
    installed: RwLock<Option<Arc<Installed>>>,
    counters: Counters,
    hash: ShapeHash,
    /// Boxed: a room is several cache lines of vectors, and moves with its request.
    #[expect(clippy::vec_box, reason = "what moves is the box")]
    pub(super) rooms: Mutex<Vec<Box<Room>>>,
    #[expect(clippy::vec_box, reason = "what moves is the box")]
    presses: Mutex<Vec<Box<Press>>>,
}

/// A catalog and what was made from it; replaced as one.
#[derive(Debug)]
pub(super) struct Installed {
    pub(super) catalog: Arc<Catalog>,
    shapes: Mutex<Shapes>,
}

/// Buffers of one request, from its body to its answer, and kept between requests. Small: a
/// request holds them while it waits.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) columns: Vec<Column>,
    pub(super) keys: Keys,
    /// Of the head.
    pub(super) warning: Vec<u8>,
}

/// Buffers that an answer is printed with, held no longer than that takes, so that they are as
/// many as threads and not as requests.
#[derive(Debug, Default)]
pub(super) struct Press {
    json: answer::Room,
    avro: envelope::Room,
    feast: feast::Room,
    arrow: arrow::Room,
    coding: coding::Room,
    head: Vec<u8>,
    /// The body behind room for the head, which is known last.
    response: Vec<u8>,
    /// Rows of each read by their worst status.
    tallies: Vec<Tally>,
}

/// A request whose names are resolved and whose keys are encoded.
#[derive(Debug)]
pub struct Prepared {
    /// What is read and how it is answered.
    pub plan: Arc<Plan>,
    /// The deadline that the body asks for.
    pub deadline_ms: Option<i64>,
}

impl Engine {
    /// An engine without a catalog.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Puts a catalog into force for every request that starts from now on.
    pub fn install(&self, catalog: Arc<Catalog>) {
        let installed = Installed { catalog, shapes: Mutex::default() };
        let mut place = self.installed.write().unwrap_or_else(PoisonError::into_inner);
        *place = Some(Arc::new(installed));
    }

    /// Generation of the catalog in force, 0 without one.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.installed().map_or(0, |installed| installed.catalog.generation)
    }

    /// Totals since start.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Number of plans that are remembered.
    #[must_use]
    pub fn plan_count(&self) -> usize {
        self.installed().map_or(0, |installed| lock(&installed.shapes).len())
    }

    /// Answers a request from a source, which is opened only for a request that is right, and
    /// gives the whole response, head included, to `deliver`.
    pub fn read<S: RowSource, T>(
        &self,
        call: &ReadCall<'_>,
        open: impl FnOnce() -> std::result::Result<S, RowError>,
        deliver: impl FnOnce(&[u8]) -> T,
    ) -> std::result::Result<T, StaleCatalog> {
        let mut room = lock(&self.rooms).pop().unwrap_or_default();
        let mut press = self.press(call.request_id);
        let answered = self.answer(call, open, &mut room, &mut press);
        let delivered = answered.map(|start| deliver(press.printed(start)));
        self.give_back(room);
        self.keep(press);
        delivered
    }

    fn answer<S: RowSource>(
        &self,
        call: &ReadCall<'_>,
        open: impl FnOnce() -> std::result::Result<S, RowError>,
        room: &mut Room,
        press: &mut Press,
    ) -> std::result::Result<usize, StaleCatalog> {
        let installed = self.installed();
        let generation = installed.as_ref().map_or(0, |found| found.catalog.generation);
        let end = match self.prepare(installed.as_deref(), call.body, call.accept, room) {
            Err(problem) => End::Problem(problem),
            Ok(prepared) => match open() {
                Ok(source) => {
                    let mut rows = SourceRows::new(&source, call.now_ms, call.reloaded);
                    self.run(&prepared.plan, &mut rows, call.now_ms, room, press)?
                }
                Err(error) => {
                    self.run(&prepared.plan, &mut NoRows(error), call.now_ms, room, press)?
                }
            },
        };
        Ok(self.finish(end, call, generation, &room.warning, press))
    }

    /// Resolves a body and encodes its keys into `room`.
    pub(super) fn prepare(
        &self,
        installed: Option<&Installed>,
        body: &[u8],
        accept: Accept,
        room: &mut Room,
    ) -> Result<Prepared> {
        room.warning.clear();
        let installed = installed.ok_or_else(|| {
            Problem::new(Code::NoCatalog, "no catalog was published yet; run `headrace apply`")
        })?;
        let prepared = self.find_plan(installed, body, accept, &mut room.columns)?;
        room.keys.encode(&prepared.plan, &room.columns, &self.limits)?;
        if let Some(layout) = &prepared.plan.feast {
            layout.check_rows(&prepared.plan, &room.columns)?;
            room.warning.extend_from_slice(&layout.warning);
        }
        if let Some(layout) = &prepared.plan.arrow {
            layout.check_rows(&room.keys)?;
        }
        Ok(prepared)
    }

    fn find_plan(
        &self,
        installed: &Installed,
        body: &[u8],
        accept: Accept,
        columns: &mut Vec<Column>,
    ) -> Result<Prepared> {
        let hash = self.hash.of(body, accept);
        if let Some(hash) = hash {
            let mut shapes = lock(&installed.shapes);
            for shape in shapes.candidates(hash) {
                if let Some(deadline_ms) = shape.matches(body, accept, columns, &self.limits) {
                    self.counters.plan(true);
                    return Ok(Prepared { plan: Arc::clone(&shape.plan), deadline_ms });
                }
            }
        }
        self.counters.plan(false);
        self.make_plan(installed, body, accept, columns, hash)
    }

    fn make_plan(
        &self,
        installed: &Installed,
        body: &[u8],
        accept: Accept,
        values: &mut Vec<Column>,
        hash: Option<u64>,
    ) -> Result<Prepared> {
        let (catalog, counters) = (&installed.catalog, &self.counters);
        if accept == Accept::Feast {
            let request = feast::Request::parse(body)?;
            let plan = Arc::new(request.compile(catalog, &self.limits, counters)?);
            self.read_columns(&plan, request.used(&plan), values)?;
            request.check_unused(&plan, values)?;
            if let Some(hash) = hash.filter(|_| request.uses_all(&plan)) {
                self.remember(installed, hash, body, request.used(&plan), None, &plan);
            }
            return Ok(Prepared { plan, deadline_ms: None });
        }
        let request = Request::parse(body, &self.limits)?;
        let plan = Arc::new(Plan::compile(catalog, &request, accept, &self.limits, counters)?);
        self.read_columns(&plan, columns(&request), values)?;
        if let Some(hash) = hash {
            self.remember(installed, hash, body, columns(&request), request.deadline, &plan);
        }
        Ok(Prepared { plan, deadline_ms: request.deadline.map(|at| at.milliseconds) })
    }

    fn read_columns<'r, 'a: 'r>(
        &self,
        plan: &Plan,
        columns: impl Iterator<Item = &'r KeyColumn<'a>>,
        values: &mut Vec<Column>,
    ) -> Result<()> {
        if values.len() < plan.columns.len() {
            values.resize_with(plan.columns.len(), Column::default);
        }
        let planned = plan.columns.iter().zip(columns);
        for ((planned, column), values) in planned.zip(values.iter_mut()) {
            let mut reader = column.values.clone();
            values
                .read(&mut reader, planned.scalar, self.limits.keys_max)
                .map_err(|problem| planned.place(plan.accept, problem))?;
        }
        Ok(())
    }

    fn remember<'r, 'a: 'r>(
        &self,
        installed: &Installed,
        hash: u64,
        body: &[u8],
        columns: impl Iterator<Item = &'r KeyColumn<'a>>,
        deadline: Option<Deadline>,
        plan: &Arc<Plan>,
    ) {
        if let Some(shape) = self.hash.cut(body, columns, deadline, plan) {
            lock(&installed.shapes).insert(hash, Arc::new(shape));
        }
    }

    /// Prints every row and says how the request ends.
    pub(super) fn run(
        &self,
        plan: &Plan,
        rows: &mut impl Rows,
        now_ms: i64,
        room: &Room,
        press: &mut Press,
    ) -> std::result::Result<End, StaleCatalog> {
        let Room { columns, keys, .. } = room;
        let Press { json, avro, feast, arrow, response, tallies, .. } = press;
        tallies.clear();
        let printed = match plan.accept {
            Accept::Json => {
                print(plan, keys, rows, &mut Json::new(response, json, plan, now_ms), tallies)
            }
            Accept::Avro => {
                print(plan, keys, rows, &mut Envelope::new(response, avro, now_ms), tallies)
            }
            Accept::Feast => {
                let mut writer = Feast::new(response, feast, columns, plan, now_ms);
                print(plan, keys, rows, &mut writer, tallies)
            }
            Accept::Arrow => {
                let mut writer = Arrow::new(response, arrow, columns, plan, now_ms);
                print(plan, keys, rows, &mut writer, tallies)
            }
        };
        printed.inspect_err(|_| {
            arrow.forget();
            self.counters.end(Outcome::Stale);
        })?;
        // Only now: a request of a newer catalog is read again, and its rows count once.
        for (read, tally) in plan.reads.iter().zip(tallies.iter()) {
            read.counters.add(tally);
        }
        if plan.accept == Accept::Arrow && arrow.too_large {
            return Ok(End::Problem(arrow::too_large()));
        }
        Ok(End::of(plan, tallies))
    }

    /// Writes the head, and a problem's body; returns where the response starts.
    pub(super) fn finish(
        &self,
        end: End,
        call: &ReadCall<'_>,
        generation: u64,
        warning: &[u8],
        press: &mut Press,
    ) -> usize {
        let (mut coding, mut vary) = (Coding::Identity, "");
        let (status, content_type, outcome) = match end {
            End::Whole | End::Partial => {
                let whole = matches!(end, End::Whole);
                let outcome = if whole { Outcome::Whole } else { Outcome::Partial };
                let content_type = match call.accept {
                    Accept::Json | Accept::Feast => head::JSON,
                    Accept::Avro => head::AVRO,
                    Accept::Arrow => head::ARROW,
                };
                let feast = call.accept == Accept::Feast;
                vary = if feast { head::FEAST_VARY } else { head::VARY };
                coding = press.coding.encode(call.coding, &mut press.response, HEAD_BYTES);
                (200, content_type, outcome)
            }
            End::Problem(problem) => {
                press.response.truncate(HEAD_BYTES);
                let (status, content_type) = if call.accept == Accept::Feast {
                    (feast::refuse(&problem, &mut press.response), head::JSON)
                } else {
                    problem.write_json(&mut press.response);
                    (problem.code().status(), head::PROBLEM)
                };
                let outcome = if status < 500 { Outcome::Refused } else { Outcome::Unavailable };
                (status, content_type, outcome)
            }
        };
        self.counters.end(outcome);
        let head = Head {
            status,
            content_type,
            coding,
            vary,
            content_length: press.response.len().saturating_sub(HEAD_BYTES),
            request_id: call.request_id,
            generation,
            retry_after: (status == 503).then_some(RETRY_AFTER_SECONDS),
            warning,
            keep_alive: call.keep_alive,
        };
        press.head.clear();
        head.write(&mut press.head);
        let start = HEAD_BYTES.saturating_sub(press.head.len());
        if let Some(place) = press.response.get_mut(start..HEAD_BYTES) {
            place.copy_from_slice(&press.head);
        }
        start
    }

    pub(super) fn installed(&self) -> Option<Arc<Installed>> {
        self.installed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn give_back(&self, room: Box<Room>) {
        let mut rooms = lock(&self.rooms);
        if rooms.len() < ROOMS_MAX && room.bytes() <= ROOM_BYTES_MAX {
            rooms.push(room);
        }
    }

    /// Buffers for the answer to a request of that id.
    pub(super) fn press(&self, request_id: &[u8]) -> Box<Press> {
        let mut press = lock(&self.presses).pop().unwrap_or_default();
        press.response.clear();
        press.response.resize(HEAD_BYTES, 0);
        press.arrow.name_request(request_id);
        press
    }

    /// Keeps the buffers of an answer that was delivered.
    pub(super) fn keep(&self, press: Box<Press>) {
        let mut presses = lock(&self.presses);
        let bytes = press.response.capacity().max(press.coding.capacity());
        if presses.len() < PRESSES_MAX && bytes <= PRESS_BYTES_MAX {
            presses.push(press);
        }
    }
}

impl Room {
    fn bytes(&self) -> usize {
        let columns = self.columns.iter().map(Column::capacity_bytes);
        columns.fold(self.keys.capacity_bytes(), usize::saturating_add)
    }
}

impl Press {
    /// The response, whose head ends where the body starts.
    pub(super) fn printed(&self, start: usize) -> &[u8] {
        self.response.get(start..).unwrap_or_default()
    }
}

/// How a request ends.
#[derive(Debug)]
pub(super) enum End {
    Whole,
    Partial,
    Problem(Problem),
}

impl End {
    fn of(plan: &Plan, tallies: &[Tally]) -> Self {
        let count = |status: Status| -> u64 {
            tallies.iter().filter_map(|tally| tally.get(status.number())).sum()
        };
        let (unavailable, corrupt) = (count(Status::Unavailable), count(Status::Corrupt));
        let rows: u64 = tallies.iter().flatten().sum();
        if unavailable > 0 && unavailable == rows {
            let detail = "the online store could not be reached for any row; try again";
            return Self::Problem(Problem::new(Code::Unavailable, detail));
        }
        match unavailable.saturating_add(corrupt) {
            0 => Self::Whole,
            lost if plan.options.strict => {
                let why = if plan.accept == Accept::Feast {
                    "Feast has no status for that"
                } else {
                    "`strict` was asked for"
                };
                let detail = format!(
                    "{lost} of {rows} rows could not be served ({unavailable} UNAVAILABLE, \
                     {corrupt} CORRUPT) and {why}"
                );
                Self::Problem(Problem::new(Code::StrictPartial, detail))
            }
            _ => Self::Partial,
        }
    }
}

/// Rows of a store that could not be opened.
struct NoRows(RowError);

impl Rows for NoRows {
    fn visit<V: FnOnce(Row<'_>)>(
        &mut self,
        _read: &PlannedRead,
        _slot: usize,
        _key: &[u8],
        visit: V,
    ) -> std::result::Result<(), StaleCatalog> {
        visit(self.0.into());
        Ok(())
    }
}

/// Prints all rows in request order and counts them, per read, by their worst status.
fn print(
    plan: &Plan,
    keys: &Keys,
    rows: &mut impl Rows,
    writer: &mut impl Writer,
    tallies: &mut Vec<Tally>,
) -> std::result::Result<(), StaleCatalog> {
    writer.begin(plan);
    for (position, read) in plan.reads.iter().enumerate() {
        let slots = keys.slots(position);
        let mut tally = Tally::default();
        writer.begin_read(read, slots.len());
        for (number, slot) in slots.enumerate() {
            rows.visit(read, slot, keys.key(slot), |row| {
                let status = writer.row(read, number, &row);
                if let Some(count) = tally.get_mut(status.number()) {
                    *count = count.saturating_add(1);
                }
            })?;
        }
        writer.end_read(read);
        tallies.push(tally);
    }
    writer.end();
    Ok(())
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
