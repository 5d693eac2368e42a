"""Types of the extension module, kept true by a stub test."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final, Literal, TypeAlias, final

class CodecError(ValueError):
    """Bytes, JSON or a schema that cannot be accepted.

    `code` is a stable upper-case word, `offset` the byte at which reading stopped (None where
    there is none), `path` the place inside the value, such as `values.level` (empty at the top).
    """

    code: str
    offset: int | None
    path: str

class SchemaError(CodecError):
    """A catalog document or an Avro schema that is not well formed."""

class EncodeError(CodecError):
    """A value that does not fit the field it is meant for."""

class DecodeError(CodecError):
    """Stored bytes that are torn, foreign or damaged."""

class StoreError(Exception):
    """The embedded store cannot do what it was asked.

    `code` is a stable upper-case word: STORE_MISSING, STORE_ALREADY_OPEN, STORE_UNREACHABLE,
    STORE_LAYOUT, STORE_READ_ONLY, STORE_CLOSED, DISK_FULL, READERS_FULL, BAD_NAME, STORE_ENGINE.
    """

    code: str

@final
class Catalog:
    """One generation of the compiled registry, frozen: the only thing encode and decode accept."""

    def __new__(cls, document: bytes) -> Catalog:
        """Compile a catalog document (see `headrace.registry.catalog`); raises SchemaError."""
    @property
    def generation(self) -> int: ...
    def group_id(self, group: str) -> int | None:
        """The id of a group, or None when the catalog has no group of that name."""
    def group_name(self, group_id: int) -> str | None: ...
    def fingerprint(self, group: str) -> int:
        """CRC-64-AVRO of the group's current record schema; KeyError for an unknown group."""
    def avro_schema(self, fingerprint: int) -> str | None:
        """The Avro schema (JSON text) of any schema ever registered, by fingerprint."""
    def encode_key(self, group: str, keys: Mapping[str, object]) -> bytes:
        """Key bytes (semantics 8) from one value per key field; raises EncodeError."""
    def decode_key(self, key: bytes) -> tuple[str, dict[str, int | str]]:
        """Group name and key fields of key bytes; raises DecodeError."""
    def decode_keys(self, keys: list[bytes]) -> list[tuple[str, list[int | str]]]:
        """Group name and key values, in schema order, of many keys; raises DecodeError."""
    def fold_object(
        self,
        group: str,
        cells: Sequence[tuple[int, bytes]],
        *,
        delete_timestamp: int | None,
        now_ms: int,
    ) -> FoldedRecord | None:
        """Fold the cells of one Object row: (field id, cell bytes), field id 0 is a whole record.

        None when no cell is live. `delete_timestamp` is the write timestamp of the row's newest
        DELETE, for engines that do not apply it themselves.
        """
    def decode_event(self, group: str, cell: bytes) -> tuple[int, dict[str, object]]:
        """Event time in ms and the value fields of one History event, as Python values."""
    def decode_block(self, group: str, block: bytes) -> FoldedRecord:
        """Open a cache block (checks layout, CRC and schema); raises DecodeError."""
    def history_block(self, key: bytes, cells: Sequence[bytes]) -> bytes:
        """The cache block of a History for these key bytes; cells are given newest first."""
    def transcode(
        self,
        group: str,
        cells: Sequence[bytes],
        fields: Sequence[str] | None,
        *,
        layout: Literal["rows", "objects"],
    ) -> bytes:
        """JSON text of whole-record cells: `[[1,"a"],…]` or `[{"level":1,"name":"a"},…]`.

        `fields` None is every value field of the current schema in its order. For tools and
        benchmarks: no fold, no expiry, no statuses. Raises DecodeError.
        """

@final
class FoldedRecord:
    """One record as the online store serves it."""

    @property
    def newest_event_time_ms(self) -> int: ...
    @property
    def oldest_event_time_ms(self) -> int: ...
    @property
    def values(self) -> dict[str, object]:
        """All value fields of the newest schema in its order; never-written ones at default."""
    @property
    def written(self) -> dict[str, bool]:
        """Which value fields were ever written (and have not expired)."""
    @property
    def avro(self) -> bytes:
        """The folded record as Avro single-object bytes of the newest schema."""
    def block(self, key: bytes) -> bytes:
        """The cache block of this record for these key bytes."""

@final
class Rejection:
    """Why one command cannot be applied."""

    @property
    def index(self) -> int:
        """Position of the command in the list that was given."""
    @property
    def code(self) -> str:
        """A stable word: UNKNOWN_GROUP, UNKNOWN_FIELD, WRONG_TYPE, BAD_KEY, NO_EVENT_TIME, ..."""
    @property
    def message(self) -> str: ...
    @property
    def offset(self) -> int | None: ...
    @property
    def path(self) -> str: ...

MutationKind: TypeAlias = Literal["record", "patch", "event", "delete_row", "delete_history"]

@final
class Mutation:
    """One write for one store row. Field names follow design 1."""

    @property
    def index(self) -> int:
        """Position of its command in the list that was given."""
    @property
    def kind(self) -> MutationKind: ...
    @property
    def group_id(self) -> int: ...
    @property
    def key(self) -> bytes:
        """Key bytes, group id included."""
    @property
    def field_id(self) -> int:
        """The patched field; 0 for every other kind."""
    @property
    def event_id(self) -> int:
        """Content digest, as an unsigned 64-bit number."""
    @property
    def event_time_ms(self) -> int: ...
    @property
    def write_timestamp(self) -> int: ...
    @property
    def expires_at_ms(self) -> int | None:
        """event time + ttl, or None without a ttl."""
    @property
    def cell(self) -> bytes:
        """The cell; empty for a delete."""

@final
class CommandBatch:
    """Commands turned into cells, in one call and without a Python object per value."""

    @property
    def accepted(self) -> int:
        """Commands that became at least one mutation or arrived expired."""
    @property
    def expired(self) -> int:
        """Commands that had expired on arrival: counted, and no mutation is made (semantics 3)."""
    @property
    def rejections(self) -> list[Rejection]: ...
    @property
    def mutation_count(self) -> int: ...
    @property
    def newest_event_time_ms(self) -> int | None:
        """The newest event time of the accepted commands; None when there are none."""
    def mutations(self) -> list[Mutation]:
        """The writes as Python objects, for stores that are driven from Python."""
    def touched_keys(self) -> list[bytes]:
        """Distinct key bytes that the batch writes, for cache invalidation."""
    def coordinates(self) -> list[tuple[int, str, bytes, int]]:
        """Per accepted command: (index, method, key bytes, event time in ms), for downsync."""

def encode_commands(catalog: Catalog, payloads: Sequence[bytes], *, now_ms: int) -> CommandBatch:
    """Check a batch of commands (each JSON text, or a bulk Avro command) and encode them to cells.

    A bad command never raises: it is a `Rejection` of the batch. Commands whose event time is more
    than 5 minutes ahead of `now_ms` are rejected.
    """

def encode_columns(
    catalog: Catalog,
    group: str,
    arrow_ipc_stream: bytes,
    *,
    method: str,
    event_time_column: str | None = None,
    event_time_ms: int | None = None,
) -> list[tuple[bytes, bytes]]:
    """Encode every row of an Arrow IPC stream: (partition key, bulk Avro command), in row order.

    The columns are exactly the group's key fields, its current value fields (none for DELETE) and
    the event time column, in any order. Give either `event_time_column` (a timestamp of any unit,
    or integers of milliseconds) or one `event_time_ms` for all rows. `method` is UPDATE, APPEND or
    DELETE. Raises EncodeError, whose `path` is the column and the row (`level.17`).
    """

def partition_key(catalog: Catalog, payload: bytes) -> bytes:
    """Key bytes by which a command is spread over partitions; raises EncodeError."""

@final
class CachedReads:
    """Reads through cache nodes: requests in, MGETs out, replies in, responses out.

    One pipelined connection a node, owned by the caller, who moves bytes. `caller` is whatever a
    request is known by, `token` the number of a command; each comes back exactly once.
    """

    def __new__(
        cls, engine: ReadEngine, placement: Placement, *, local_bytes_max: int = 0
    ) -> CachedReads:
        """`local_bytes_max` bounds the in-process tier of groups with a `local_ttl`; 0: none."""
    def listen(
        self,
        *,
        flush_soon: Callable[[], object],
        missed: Callable[[LaneTurn, PendingRead], object],
        refusal: tuple[bytes, bytes],
        least: int,
        least_reads: int,
        unknown: int,
        wait_ms: int,
    ) -> None:
        """What the requests of a lane call, and how many may wait.

        `flush_soon` when they have queued something, once until the next `take`; `missed` with each
        that no cache node can say anything about. What would wait longer than `wait_ms` for the
        nodes is refused, by a `Pace` of that `least` and `unknown` work, unless fewer than
        `least_reads` requests wait; `refusal` is that response up to the request's id, and from
        behind the generation's head field on.
        """
    @property
    def work_under_way(self) -> int:
        """Of the requests that wait for nodes, in values; a row counts 10 more, a request 500."""
    def refuse(self, request_id: bytes, *, keep_alive: bool) -> bytes | None:
        """The response that refuses one more request, None when there is room for it."""
    def node_up(self, node: int) -> None:
        """A new connection to a node is ready; before, its rows go to the store."""
    def progress(self, node: int) -> tuple[int, int]:
        """Replies that came from a node since it was up, and those that it still owes."""
    def submit(
        self,
        body: bytes,
        *,
        caller: object,
        accept: int,
        now_ms: int,
        request_id: bytes,
        keep_alive: bool,
        reloaded: bool = False,
    ) -> bytes | PendingRead | None:
        """Start a request.

        Bytes are the finished refusal of a wrong request; a `PendingRead` when no cache node can
        say anything; None when `feed` or `drop_node` will bring the rest together with `caller`.
        """
    def command(self, node: int, arguments: list[bytes], token: int) -> bool:
        """Queue a command of the caller's own, such as a script; False when the node is down."""
    def take(self, node: int) -> bytes | None:
        """The bytes to send to a node now, None when there is nothing to say."""
    def feed(
        self, node: int, received: bytes, *, now_ms: int
    ) -> tuple[list[tuple[Any, CacheOutcome]], str | None]:
        """Take bytes from a node: what they finish, and why the connection must end, if it must.

        Requests of a lane that are answered whole are written to their connections and not listed;
        one that is not comes as a `LaneTurn`.
        """
    def drop_node(self, node: int) -> list[tuple[Any, CacheOutcome]]:
        """The connection to a node ended: whatever waited for it."""
    def local_block(self, key: bytes) -> tuple[bytes, int] | None:
        """What the in-process tier holds of a key and until when, in ms since the epoch."""
    def counters(self) -> dict[str, int]:
        """Totals since start: hits, misses, unusable, errors, local_hits; local_bytes now."""

@final
class SystemClock:
    """The system's clock, which Rust reads without a call into Python."""

    def __new__(cls) -> SystemClock: ...
    def __call__(self) -> int:
        """Milliseconds since the epoch."""

@final
class RequestIds:
    """Makes request ids: unique by a prefix per process, cheap by a counter."""

    def __new__(cls, prefix: bytes) -> RequestIds: ...
    def make(self) -> bytes:
        """The next id, such as `9f86d081884c-1a`."""

@final
class ReadTimes:
    """Counts answers by status and time."""

    BOUNDS_NS: ClassVar[list[int]]
    """Upper bounds of the buckets in nanoseconds; one more bucket is above them."""
    def __new__(cls) -> ReadTimes: ...
    def observe(self, elapsed_ns: int, status: bytes) -> None:
        """Count one answer by its time and the three digits of its status."""
    def totals(self) -> tuple[list[int], int, list[tuple[int, int]]]:
        """Counts by bucket, the sum of all times in nanoseconds, and (status, count)."""
    @property
    def lane_answers(self) -> int:
        """Answers that lanes wrote."""
    def clear(self) -> None:
        """Count from zero again."""

@final
class ReadLane:
    """What the lane's connections share.

    `reader` is a `CachedReads`, an engine with its store, or a function like
    `headrace.gateway.read_path.ReadPath.start`.
    """

    def __new__(
        cls,
        reader: CachedReads | tuple[ReadEngine, LmdbStore] | Callable[..., bytes | None],
        *,
        clock: Callable[[], int],
        ids: RequestIds,
        times: ReadTimes,
        body_bytes_max: int,
        held_bytes_max: int,
        due_answers_max: int,
    ) -> ReadLane: ...
    def learn(self, head: bytes, accept: int) -> bool:
        """Remember the head of a request that was taken, empty line included.

        The next one that differs in its content length alone is not parsed. False for a head that
        has no plain content length or is too long.
        """
    @property
    def known_heads(self) -> int:
        """How many heads are remembered."""
    @property
    def held_bytes(self) -> int:
        """Unfinished bodies, requests that wait and unread answers of all connections."""
    def hold(self, bytes: int) -> None:
        """Count more bytes as held, or fewer."""
    sweep: int
    """Number of sweeps so far: the clock of all time limits."""
    draining: bool
    """Whether every answer ends its connection; then no request is answered unparsed."""

@final
class LaneConnection:
    """The lane's half of one connection: usual requests are answered without a Python frame.

    `received` takes the bytes that are no usual request, `end` the last answer of the connection.
    `crowded` is called when too many answers are due, `over` when none is due any more while the
    next request is not `usual`.
    """

    def __new__(
        cls,
        lane: ReadLane,
        *,
        received: Callable[[bytes], None],
        end: Callable[[bytes], None],
        crowded: Callable[[], None],
        over: Callable[[], None],
    ) -> LaneConnection: ...
    def connected(self, write: Callable[[bytes], None]) -> None:
        """Answers are written with that from now on."""
    usual: bool
    """Whether the next request may be answered unparsed."""
    @property
    def since(self) -> int:
        """Sweep of the last thing that happened."""
    def touch(self) -> None:
        """Something happened now."""
    @property
    def due(self) -> int:
        """How many answers are due."""
    def clear(self) -> None:
        """Drop the answers that are due."""
    def close(self) -> None:
        """The connection is gone: drop what is due, and let go of the protocol."""
    def data_received(self, data: bytes) -> None:
        """Bytes from the caller: a usual request is answered, now or later, all else passed on."""
    def read(self, body: bytes, accept: int, request_id: bytes | None, *, keep_alive: bool) -> bool:
        """Answer a parsed request, now or when its turn has come. False when it must be read
        elsewhere; raises what the reader raises."""

@final
class LaneTurn:
    """A request of a lane that is not answered at once. Called with its response, even after its
    caller left."""

    @property
    def body(self) -> bytes: ...
    @property
    def accept(self) -> int: ...
    @property
    def request_id(self) -> bytes: ...
    @property
    def keep_alive(self) -> bool: ...
    @property
    def age_ns(self) -> int:
        """Nanoseconds since it came."""
    def __call__(self, response: bytes) -> None:
        """Deliver the response; it is counted and timed by whoever calls."""

@final
class PendingRead:
    """A request whose remaining rows come from the store. Nothing works once it is answered."""

    @property
    def deadline_ms(self) -> int | None:
        """The deadline that the body asks for."""
    def wanted(self) -> list[tuple[int, bytes, int | None, int]]:
        """Rows still wanted: (slot, key bytes, events to read or None, cache ttl in ms)."""
    def take_block(self, slot: int, block: bytes, now_ms: int) -> bool:
        """Take a cached block for a row; False when it cannot be used."""
    def take_cells(
        self, slot: int, cells: list[tuple[int, bytes]], now_ms: int
    ) -> tuple[bytes, int] | None:
        """Take a row's cells: the block that may fill a cache and its ttl in ms.

        None when the row is damaged. Raises StaleCatalog for a row of a newer catalog.
        """
    def take_rows(
        self, rows: list[tuple[int, list[tuple[int, bytes]]]], now_ms: int
    ) -> list[tuple[bytes, int] | None]:
        """`take_cells` for many rows, each (slot, cells); in the same order.

        None also for a row whose group is not cached. Raises StaleCatalog at the first row of a
        newer catalog; none is to fill a cache then.
        """
    def take_unavailable(self, slot: int) -> None:
        """Say that the store was not reached for a row."""
    def finish(self) -> bytes:
        """The response; rows that are still wanted are UNAVAILABLE. Only once."""

CacheOutcome: TypeAlias = bytes | PendingRead | list[bytes | int | str | None] | None
"""What comes back to a caller or under a token: a response; a request with rows still wanted; the
items of a command's reply (an error is a str); None for a request of a newer catalog or a lost
command."""

@final
class Pace:
    """How much may wait before a stage, by the speed that it has shown; units are the caller's.

    What waits W seconds before a stage that finishes R units a second is R x W units (Little 1961).
    R is the most that was finished in any of the last windows in which the stage was busy.
    """

    WINDOW_S: ClassVar[float]
    """Length of a window."""
    WINDOWS: ClassVar[int]
    """How many of them are remembered."""

    def __new__(cls, *, least: int, unknown: int) -> Pace:
        """Less than `least` keeps the stage busy and is never refused.

        While the speed is not known, `unknown` are let in.
        """
    @property
    def under_way(self) -> int:
        """Units that wait now."""
    @property
    def rate(self) -> int | None:
        """Units a second that the stage can do; None while unknown."""
    def admits(self, now_s: float, wait_s: float) -> bool:
        """Whether one who comes now would wait no longer than that."""
    def begin(self, units: int) -> None:
        """Units come to wait."""
    def end(self, units: int, elapsed_ns: int, *, finished: bool = True) -> None:
        """Units leave after so long, finished by the stage or given up."""

@final
class Placement:
    """The nodes of one cache (`host:port`) and the epoch of their list."""

    def __new__(cls, nodes: Sequence[str], *, epoch: int) -> Placement:
        """Raises SchemaError for no node at all or more than 256."""
    def node(self, key: bytes) -> int:
        """Position of the node that holds a key, by rendezvous hashing."""
    def block_key(self, key: bytes) -> bytes:
        """The cache key of a key's block."""
    def lease_key(self, key: bytes) -> bytes:
        """The cache key of a key's lease."""
    def places(self, keys: list[bytes]) -> list[tuple[int, bytes, bytes]]:
        """Node, block key and lease key of many keys, in the same order."""
    def invalidations(self, keys: list[bytes]) -> list[list[bytes]]:
        """Block and lease keys of many keys, one list a node: what an invalidation deletes."""

@final
class LmdbStore:
    """The embedded online store: one handle per process, shared by reader, writer and catalog.

    Any number of processes read while one writes; a second writer waits for the first one's
    transaction. Every method raises `StoreError`; damaged rows raise `DecodeError`. Not to be used
    across `fork`.
    """

    def __new__(
        cls, path: str, *, map_size_bytes: int | None = None, read_only: bool = False
    ) -> LmdbStore:
        """Open the store in folder `path`, made when missing; the map grows when it is full."""
    def apply(self, batch: CommandBatch, catalog: Catalog, *, now_ms: int) -> None:
        """Write a batch in one transaction; durable when this returns."""
    def fetch_object(
        self, catalog: Catalog, keys: Sequence[bytes], *, now_ms: int
    ) -> list[FoldedRecord | None]:
        """Folded records, one per key, None where no live cell is left."""
    def fetch_history(
        self, catalog: Catalog, keys: Sequence[bytes], *, limit: int, now_ms: int
    ) -> list[list[tuple[int, dict[str, object]]]]:
        """Newest events first, one list per key: (event time in ms, value fields)."""
    def get(self, name: str) -> bytes | None:
        """One entry of the small named-value space that holds the catalog and sync state."""
    def put(self, name: str, value: bytes) -> None: ...
    def compare_and_put(self, name: str, expected: bytes | None, value: bytes) -> bool:
        """Put only while the present value is `expected` (None: absent); True when it was put."""
    def compare_and_put_all(
        self, name: str, expected: bytes | None, values: Mapping[str, bytes]
    ) -> bool:
        """Put several values at once, only while the present value of `name` is `expected`."""
    def names(self, prefix: str) -> list[str]: ...
    def scan_keys(self, group_id: int) -> list[bytes]:
        """Distinct key bytes of a group, for tools and checks."""
    def statistics(self) -> dict[str, int]:
        """map_size_bytes, used_bytes, entries, readers, and damaged_rows.

        The last counts rows whose framing this handle's writes found damaged: they begin anew with
        what the batch holds.
        """
    def clear_stale_readers(self) -> int:
        """Free the reader slots of processes that died; returns how many there were."""
    def close(self) -> None: ...

class StaleCatalog(Exception):
    """A stored row has a schema of a newer catalog: load it once, read again (semantics 20)."""

@final
class ReadEngine:
    """Answers read requests (product 4) under the catalog in force: bytes in, bytes out.

    No Python object is made for a key, a row or a value, and no body makes a call raise anything
    but `StaleCatalog`. Safe to share between threads.
    """

    def __new__(
        cls, *, keys_max: int = 1000, reads_max: int = 64, rows_max: int = 4000
    ) -> ReadEngine:
        """Bounds of one request: keys a read, reads, rows in all."""
    def install(self, catalog: Catalog) -> None:
        """Put a catalog into force for every request that starts from now on; forgets all plans."""
    @property
    def generation(self) -> int:
        """Generation of the catalog in force, 0 without one."""
    def read(
        self,
        store: LmdbStore,
        body: bytes,
        *,
        accept: int,
        now_ms: int,
        request_id: bytes,
        keep_alive: bool,
        reloaded: bool = False,
    ) -> bytes:
        """The whole HTTP/1.1 response to a request body, head included.

        `accept` is 0 for JSON, 1 for the Avro envelope, 2 for Feast's request and answer
        (semantics 16), 3 for an Arrow IPC stream. A caller's mistake is a finished problem+json
        response, or for Feast the JSON that its client understands. Raises `StaleCatalog` when a
        stored row was written under a schema that the catalog in force lacks; with `reloaded`, once
        the newest catalog is installed, such a row is UNAVAILABLE instead. `request_id` is left out
        of the head unless it
        is 1 to 64 of `[A-Za-z0-9._-]`.
        """
    def counters(self) -> dict[str, int]:
        """Totals since start: `requests/OUTCOME` (whole, partial, refused, unavailable,
        stale_catalog), `plans/hit`, `plans/miss` and `rows/STATUS/GROUP`, a row under its worst
        status."""
    @staticmethod
    def problems() -> list[tuple[str, int, str]]:
        """Every problem of a read: its word, its HTTP status and when it is answered."""
    @staticmethod
    def envelope_schema() -> str:
        """The Avro schema (JSON text) of an Avro answer."""

FORMAT_VERSION: Final[int]
KEY_BYTES_MAX: Final[int]
DEADLINE_MAX_MS: Final[int]
