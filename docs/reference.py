"""Tables of the reference pages, made from the code that they describe: nobody types a limit.

    python docs/reference.py [--check]

What stands between `<!-- reference:NAME -->` and `<!-- /reference:NAME -->` in a page is replaced.
With `--check` nothing is written and the exit status is 1 when a page is not what the code says.
Members of the YAML have their meanings here, because the code knows only what it takes for them.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import msgspec

from headrace.codec import DEADLINE_MAX_MS, KEY_BYTES_MAX, ReadEngine
from headrace.gateway import limits
from headrace.gateway.commands import COMMANDS_MAX
from headrace.gateway.problem_codes import PROBLEM_CODES
from headrace.registry import group_rules, load, rules
from headrace.registry.field_types import SCALARS, FieldType
from headrace.registry.model import Field, Group, Principal, Read, Service
from headrace.registry.settings import GatewaySettings
from headrace.registry.values import Reader, Reading
from headrace.registry.yaml_tree import Mark, YamlMapping, YamlSequence
from headrace.sync.logs import kafka_sizes, kafka_url

FOLDER = Path(__file__).resolve().parent
PAGES = (FOLDER / "commands.md", FOLDER / "http.md", FOLDER / "registry.md")
FORMAT = FOLDER.parent / "rust_codec" / "core" / "src" / "format.rs"
BLOCK = re.compile(r"<!-- reference:(\w+) -->\n.*?<!-- /reference:\1 -->", re.DOTALL)

TOP = Mark(1, 1)
NOT_TAKEN = (YamlSequence(TOP, []), YamlMapping(TOP, {}))
"""No member takes both, so one of the two is answered with what the member does take."""

GROUP_MEANINGS = {
    "feature_type": "one current record a key, or the newest events of a key",
    "owner": "who answers for the group",
    "description": "what a reader should know",
    "schema": "name → field, in the order of answers; at least one key and one value field",
    "ttl": "a row vanishes at its event time + `ttl`; without it never",
    "max_age": "an older row is served and flagged STALE",
    "history.max_events": "events kept a key, of a History",
    "cache.ttl": "how long a row is cached; `0s` turns the cache off",
    "cache.local_ttl": "how long a gateway process keeps it besides; `0s` is not at all",
    "upsync.enabled": "rows of the offline table flow to the online store",
    "upsync.incremental_update": "only rows changed since the last run are read",
    "upsync.updated_at": "the column of a row's event time",
    "downsync.enabled": "real-time changes flow to the offline table",
    "downsync.min_interval_by_key": "a change of a key sooner than that after the last is dropped",
    "downsync.random_sampling_ratio": "the share of changes that is kept",
    "retention.offline": "how long offline rows are kept",
    "feast_name": "what Feast's clients call it",
}
FIELD_MEANINGS = {
    "type": "see [types](#types)",
    "is_key_field": "the field is part of the key: Text, Integer or Long",
    "nullable": "the value may be null, and is null where it was never written",
    "default_value": "what is answered where it was never written, in the form answers print",
    "description": "what a reader should know",
    "pii": "`true` or a class of personal data",
    "deprecated": "why, and until when it stays",
    "feast_name": "what Feast's clients call it",
}
SERVICE_MEANINGS = {
    "owner": "who answers for the service",
    "description": "what a reader should know",
    "reads": "what one request reads, 1 to 64",
    "feast_name": "what Feast's clients call it",
}
READ_MEANINGS = {
    "feature_group": "name of the group",
    "fields": 'value fields in the order of the answer, or `"*"` for all',
    "as": "name of the result, where one group is read twice",
    "keys": "key field → request key; a field that is not named is asked for by its own name",
    "limit": "events a key, of a History",
}
PRINCIPAL_MEANINGS = {
    "api_key_sha256": "SHA-256 of each API key, 64 hex digits",
    "read": "groups that may be read: a name, `domain::*` or `*`",
    "write": "groups that may be written",
    "erase": "whether it may erase keys",
    "quota_rps": "requests a second",
}
DEFAULTS_OF = {
    **{f"{section}.{name}": field for section, names in load.GROUP_SECTIONS.items()
       for name, field in names.items()},
    "ttl": "ttl_ms", "max_age": "max_age_ms",
}  # fmt: skip
"""Member of a group → field of the model, where the two differ."""


def main(arguments: list[str]) -> int:
    """Write or check every page."""
    parser = argparse.ArgumentParser(prog="reference", description=__doc__)
    parser.add_argument("--check", action="store_true")
    checked: bool = parser.parse_args(arguments).check
    stale = 0
    for path in PAGES:
        text = path.read_text()
        made = BLOCK.sub(lambda found: _block(found.group(1)), text)
        if made != text:
            stale += 1
            sys.stdout.write(f"docs/{path.name} {'is stale' if checked else 'is written'}\n")
            if not checked:
                path.write_text(made)
    return 1 if checked and stale else 0


def _block(name: str) -> str:
    return f"<!-- reference:{name} -->\n{TABLES[name]()}\n<!-- /reference:{name} -->"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  |", " |") for cells in lines)


def limits_table() -> str:
    """Every bound of a request, and who may move it."""
    engine = inspect.signature(ReadEngine).parameters
    settings = {
        field.name: field.default
        for field in msgspec.structs.fields(GatewaySettings)
        if field.name in ("keys_max", "body_bytes_max", "default_deadline_ms")
    }
    keys_max = str(settings["keys_max"])
    rows = [
        ["keys of one read", keys_max, _setting("keys_max"), "400 `TOO_MANY_KEYS`"],
        ["reads of one request", str(engine["reads_max"].default), "", "400 `TOO_MANY_READS`"],
        ["rows of one request", str(engine["rows_max"].default), "", "400 `TOO_MANY_ROWS`"],
        ["bytes of one key", str(KEY_BYTES_MAX), "", "400 `BAD_KEY`"],
        ["fields of a group", str(group_rules.FIELDS_MAX), "", "`headrace check`"],
        ["events of a key", str(group_rules.MAX_EVENTS_MAX), "", "`headrace check`"],
        ["commands of one request", str(COMMANDS_MAX), "", "400 `TOO_MANY_COMMANDS`"],
        ["bytes of a body", _bytes(settings["body_bytes_max"]), _setting("body_bytes_max"),
         "413 `BODY_TOO_LARGE`"],
        ["deadline of a read that names none", f"{settings['default_deadline_ms']} ms",
         _setting("default_deadline_ms"), "UNAVAILABLE rows"],
        ["`deadline_ms` of a read", f"{DEADLINE_MAX_MS} ms", "", "400 `OUT_OF_RANGE`"],
    ]  # fmt: skip
    return _table(["limit", "value", "set by", "beyond it"], rows)


def _setting(name: str) -> str:
    return f"`gateway.{name}`"


def commands_table() -> str:
    """Every bound of a command, those of the codec from its source."""
    rows = [
        ["a command", _bytes(_format_constant("COMMAND_BYTES_MAX"))],
        ["its row, encoded", _bytes(_format_constant("RECORD_BYTES_MAX"))],
        ["its key, encoded", _bytes(_format_constant("KEY_BYTES_MAX"))],
        ["a Text or Bytes value", _bytes(_format_constant("TEXT_BYTES_MAX"))],
        ["items of a list", f"{_format_constant('LIST_ITEMS_MAX')}"],
        ["nesting of the JSON", f"{_format_constant('JSON_DEPTH_MAX')} levels"],
        ["event time ahead of the clock", _minutes(_format_constant("FUTURE_EVENT_TIME_MAX_MS"))],
        ["`max.message.bytes` of the command topics", f"{kafka_sizes.COMMAND_TOPIC_BYTES_MAX}"],
        ["`max.message.bytes` of the dead letters", f"{kafka_sizes.DEAD_LETTER_TOPIC_BYTES_MAX}"],
        ["Kafka keeps both for", f"{kafka_url.RETENTION_MS // 86_400_000} days"],
    ]
    return _table(["limit", "value"], rows)


def _minutes(count_ms: int) -> str:
    return f"{count_ms // 60_000} min"


def _format_constant(name: str) -> int:
    """A product or shift of whole numbers, as the source writes it."""
    found = re.search(rf"pub const {name}: \w+ = ([\d_ *<]+);", FORMAT.read_text())
    if found is None:
        raise SystemExit(f"{FORMAT.name}: no constant `{name}`")
    value = 1
    for factor in found[1].split("*"):
        number, _, shift = factor.partition("<<")
        value *= int(number) << int(shift or 0)
    return value


def protocol_table() -> str:
    """Every bound of the HTTP side, with what the source says of it."""
    bounds, says = limits.Limits(), _docstrings(limits)
    fields = [name for name in bounds.__struct_fields__ if name != "body_bytes_max"]
    rows = [[f"`{name}`", _bound(bounds, name), says[name]] for name in fields]
    return _table(["bound", "value", "says"], rows)


def _bound(bounds: limits.Limits, name: str) -> str:
    value: float = getattr(bounds, name)
    if name.endswith("_sweeps"):
        return f"{value * bounds.sweep_seconds:g} s"
    if name.endswith("_seconds"):
        return f"{value:g} s"
    return _bytes(int(value)) if "bytes" in name else f"{value:g}"


def _bytes(count: int) -> str:
    for shift, unit in ((20, "MiB"), (10, "KiB")):
        if count >= 1 << shift and count % (1 << shift) == 0:
            return f"{count >> shift} {unit}"
    return f"{count} bytes"


def _docstrings(module: object) -> dict[str, str]:
    """The texts under the fields of a module's classes, on one line each."""
    texts: dict[str, str] = {}
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]  # a module
    for node in ast.walk(tree):
        body = node.body if isinstance(node, ast.ClassDef) else []
        for field, below in pairwise(body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
            ):
                texts[ast.unparse(field.target)] = " ".join(str(below.value.value).split())
    return texts


def problems_table() -> str:
    """Every problem by status and code."""
    ordered = sorted(PROBLEM_CODES, key=lambda code: (code.status, code.word))
    rows = [[str(code.status), f"`{code.word}`", code.meaning] for code in ordered]
    return _table(["status", "`code`", "when"], rows)


def group_table() -> str:
    """Members of a feature group, those of its sections with a dot."""
    members: dict[str, Reader] = {}
    for name, reader in load.GROUP_MEMBERS.items():
        section = load.GROUP_SECTIONS.get(name)
        if section is None:
            members[name] = reader
        for member in section or ():
            members[f"{name}.{member}"] = _member_of_section(reader, member)
    return _members(members, GROUP_MEANINGS, Group, "features/a.yaml", "a::b: {}")


def _member_of_section(section: Reader, member: str) -> Reader:
    return lambda reading, node: section(reading, YamlMapping(TOP, {member: (TOP, node)}))


def field_table() -> str:
    """Members of a field of a feature group."""
    text = "a::b: {schema: {x: {}}}"
    return _members(load.FIELD_MEMBERS, FIELD_MEANINGS, Field, "features/a.yaml", text)


def service_table() -> str:
    """Members of a feature service."""
    return _members(load.SERVICE_MEMBERS, SERVICE_MEANINGS, Service, "services/a.yaml", "a-v1: {}")


def read_table() -> str:
    """Members of one read of a feature service."""
    text = "a-v1: {reads: [{}]}"
    return _members(load.READ_MEMBERS, READ_MEANINGS, Read, "services/a.yaml", text)


def principal_table() -> str:
    """Members of a principal of `access.yaml`."""
    text = "principals: {a: {}}"
    return _members(load.PRINCIPAL_MEMBERS, PRINCIPAL_MEANINGS, Principal, "access.yaml", text)


def _members(
    known: Mapping[str, Reader],
    meanings: Mapping[str, str],
    model: type[msgspec.Struct],
    path: str,
    without: str,
) -> str:
    if known.keys() != meanings.keys():
        raise SystemExit(f"{path}: no meaning here for {known.keys() ^ meanings.keys()}")
    required = set(_required(path, without))
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(model)
        if field.default is not msgspec.NODEFAULT
    }
    rows = [
        [f"`{name}`", _taken(reader),
         "required" if name in required else _default(DEFAULTS_OF.get(name, name), defaults),
         meanings[name]]
        for name, reader in known.items()
    ]  # fmt: skip
    return _table(["member", "takes", "without it", "means"], rows)


def _required(path: str, text: str) -> Iterator[str]:
    """Members whose absence is a finding at the part that lacks them."""
    for finding in load.load_texts({path: text.encode()}).findings:
        if finding.rule == "MEMBER_REQUIRED":
            yield finding.sentence.rpartition("needs ")[2].strip("`")


def _taken(reader: Reader) -> str:
    """What a reader says it expected when it is given what it does not take."""
    for node in NOT_TAKEN:
        reading = Reading("a.yaml")
        reader(reading, node)
        for finding in reading.findings:
            found = re.match(r"expected (.+), got ", finding.sentence)
            if found is not None:
                return found[1].removesuffix(", text")
    return "a value of the field's type"


def _default(field: str, defaults: Mapping[str, object]) -> str:
    value = defaults.get(field)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int) and field.endswith("_ms"):
        return f"`{value // 60_000}m`" if value and value % 60_000 == 0 else f"`{value // 1000}s`"
    return f"`{value:g}`" if isinstance(value, int | float) else ""


def types_table() -> str:
    """Every type, how its default is written, and what it is elsewhere."""
    scalars = [FieldType(name, scalar) for name, scalar in SCALARS.items()]
    shown = [
        *scalars,
        FieldType("List<T>", SCALARS["Text"], is_list=True),
        FieldType("Vector<N>", SCALARS["Float"], is_list=True, size=64),
    ]
    examples = {"List<T>": " of Text", "Vector<N>": " of 64"}
    rows = [
        [f"`{kind.name}`{examples.get(kind.name, '')}", "yes" if _is_key(kind) else "",
         *(f"`{text}`" for text in (kind.avro, kind.cql, kind.bigquery, kind.duckdb))]
        for kind in shown
    ]  # fmt: skip
    return _table(["type", "as a key", "Avro", "CQL", "BigQuery", "DuckDB"], rows)


def _is_key(kind: FieldType) -> bool:
    return kind.scalar.is_key and not kind.is_list


def rules_table() -> str:
    """Every rule of `headrace check`."""
    tables = (rules.READING_RULES, rules.GROUP_RULES, rules.SERVICE_RULES, rules.PRINCIPAL_RULES)
    rows = [
        [
            f"`{rule.id}`",
            "" if rule.severity == "error" else rule.severity,
            re.sub(r" \(semantics \d+\)", "", rule.purpose),
        ]
        for table in tables
        for rule in table
    ]
    return _table(["rule", "", "says"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands_table,
    "limits": limits_table,
    "protocol": protocol_table,
    "problems": problems_table,
    "group": group_table,
    "field": field_table,
    "service": service_table,
    "read": read_table,
    "principal": principal_table,
    "types": types_table,
    "rules": rules_table,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
