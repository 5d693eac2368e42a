"""Strict YAML: a tree that knows the line and column of every node, or the reasons why not.

YAML 1.1 lets a registry mean something else than it says: `NO` is false, `12:30` is 750, an alias
of aliases is a bomb, the last of two equal keys wins. This reader takes libyaml's event stream and
refuses all of it, so that what is left reads the same way in every YAML library.
"""

from __future__ import annotations

import functools
import re
from typing import Final, NamedTuple, NoReturn, TypeAlias

import msgspec
import yaml

FILE_BYTES_MAX: Final = 1 << 20
"""Largest file; the biggest registry file that makes sense is some tens of kilobytes."""
DEPTH_MAX: Final = 16
"""Deepest nesting; a registry needs six."""
KEY_LENGTH_MAX: Final = 256
"""Longest mapping key, in characters."""
NODES_MAX: Final = 20_000
"""Most keys and values of a file: some 2,500 fields."""
PROBLEMS_MAX: Final = 100
"""Reading ends at this many problems; a file with more is some other format."""


class Mark(msgspec.Struct, frozen=True, order=True, gc=False):
    """A place in a file; both numbers start at 1, columns count characters."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


class YamlProblem(NamedTuple):
    """One reason why a file is refused: where, which rule, one sentence."""

    mark: Mark
    rule: str
    sentence: str


class YamlScalar(msgspec.Struct, gc=False):
    """A scalar as it was written. `plain` means without quotes, so that its type must be read."""

    mark: Mark
    text: str
    plain: bool


class YamlSequence(msgspec.Struct):
    mark: Mark
    items: list[YamlNode]


class YamlMapping(msgspec.Struct):
    """Entries by key, in the order of the file; the key's own mark is kept for messages."""

    mark: Mark
    entries: dict[str, tuple[Mark, YamlNode]]


YamlNode: TypeAlias = YamlScalar | YamlSequence | YamlMapping


class ParsedYaml(NamedTuple):
    """The tree, None for an empty file; with any problem the tree may lack what was refused."""

    root: YamlNode | None
    problems: list[YamlProblem]


class Ambiguous:
    """What `resolve` answers for a plain scalar that YAML libraries read differently."""


AMBIGUOUS: Final = Ambiguous()

# Everything but printable characters that look like what they are: right-to-left controls reorder
# what a reviewer sees, zero-width characters make two equal-looking names differ, and U+0085,
# U+2028, U+2029 and a CR without LF end a line for some readers only.
_HIDDEN = re.compile("\r(?!\n)|[\u0085\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})\Z")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,3})?\Z")
_WORDS = {"true": True, "false": False, "null": None}
# What YAML 1.1 or 1.2 gives a type other than string, beyond the forms above.
_AMBIGUOUS = re.compile(
    r"""(?x:
      (?i:y|yes|n|no|on|off|true|false|null|~|)      # booleans and null in other spellings
    | [-+]?0b[01_]+ | [-+]?0o?[0-7_]+ | [-+]?0x[0-9a-fA-F_]+   # other bases
    | [-+]?[0-9][0-9_]*(?::[0-9]{1,2})+(?:\.[0-9_]*)?          # base sixty: 12:30, 190:20:30
    | [-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?  # 017, 1_000, +1, 1., .5
    | [-+]?\.(?i:inf|nan)
    | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9:.]+[ \t]*(?:Z|[-+][0-9:]+)?)?   # dates
    | = | <<
    )\Z"""
)


def parse_yaml(text: bytes) -> ParsedYaml:
    """Read one file. Never raises for any bytes; work and memory stay within the limits above."""
    refusal = _refuse_bytes(text)
    if refusal is not None:
        return ParsedYaml(None, [refusal])
    return _TreeBuilder(text).build()


def resolve(scalar: YamlScalar) -> bool | int | float | str | Ambiguous | None:
    """The value of a scalar where no type is declared: JSON's literals, else a string."""
    text = scalar.text
    if not scalar.plain:
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.match(text):
        return int(text)
    if _NUMBER.match(text):
        return float(text)
    return AMBIGUOUS if is_ambiguous(scalar) else text


def is_ambiguous(scalar: YamlScalar) -> bool:
    """Whether a plain scalar is one that YAML libraries read differently (`NO`, `12:30`, `017`)."""
    # Nobody writes a number of more digits than a key may have, and the cache stays small.
    return scalar.plain and len(scalar.text) <= KEY_LENGTH_MAX and _is_ambiguous(scalar.text)


@functools.lru_cache(maxsize=4096)
def _is_ambiguous(text: str) -> bool:
    # The same few hundred names and words make up a whole registry.
    if text in _WORDS or _NUMBER.match(text):
        return False
    return _AMBIGUOUS.match(text) is not None


def plain_values(node: YamlNode) -> tuple[object, list[YamlProblem]]:
    """The tree as dicts, lists and JSON literals, with a problem for each ambiguous scalar."""
    problems: list[YamlProblem] = []
    return _plain(node, problems), problems


def ambiguity(scalar: YamlScalar, mend: str = "quote it if it is text") -> YamlProblem:
    """The finding for a plain scalar that YAML libraries read differently, and what mends it."""
    return YamlProblem(
        scalar.mark,
        "SCALAR_UNAMBIGUOUS",
        f"`{shown(scalar.text)}` is read differently by different YAML libraries; {mend}",
    )


def shown(text: str) -> str:
    """A piece of somebody's file for a message: one line, cut, nothing that a terminal obeys."""
    flat = text.encode("unicode_escape").decode() if not text.isprintable() else text
    return flat if len(flat) <= 60 else f"{flat[:57]}..."


def _plain(node: YamlNode, problems: list[YamlProblem]) -> object:
    if isinstance(node, YamlScalar):
        value = resolve(node)
        if isinstance(value, Ambiguous):
            problems.append(ambiguity(node))
            return None
        return value
    if isinstance(node, YamlSequence):
        return [_plain(item, problems) for item in node.items]
    return {key: _plain(value, problems) for key, (_, value) in node.entries.items()}


def _refuse_bytes(text: bytes) -> YamlProblem | None:
    """Checks that need no parser, so that no parser ever sees what they refuse."""
    if len(text) > FILE_BYTES_MAX:
        sentence = f"the file has {len(text)} bytes, the most is {FILE_BYTES_MAX}; split it"
        return YamlProblem(Mark(1, 1), "FILE_SIZE_BOUNDED", sentence)
    try:
        decoded = text.decode()
    except UnicodeDecodeError as error:
        mark = _mark_at(text[: error.start].decode(errors="replace"))
        sentence = f"byte {error.start} is not UTF-8; save the file as UTF-8"
        return YamlProblem(mark, "FILE_UTF8", sentence)
    tab = decoded.find("\t")
    if tab >= 0:
        sentence = "tab character; indent with spaces, and write `\\t` inside double quotes"
        return YamlProblem(_mark_at(decoded[:tab]), "FILE_NO_TABS", sentence)
    if "\r" in decoded or not decoded.isascii():
        hidden = _HIDDEN.search(decoded)
        if hidden is not None:
            sentence = f"hidden character U+{ord(hidden[0]):04X}; remove it"
            mark = _mark_at(decoded[: hidden.start()])
            return YamlProblem(mark, "FILE_NO_HIDDEN_CHARACTERS", sentence)
    return None


def _mark_at(before: str) -> Mark:
    return Mark(before.count("\n") + 1, len(before) - before.rfind("\n"))


class _TreeBuilder:
    """Turns events into a tree with an explicit stack: nesting never reaches Python's own."""

    def __init__(self, text: bytes) -> None:
        loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
        self._next_event = loader(text).get_event
        self._problems: list[YamlProblem] = []
        self._documents = 0
        self._nodes = 0

    def build(self) -> ParsedYaml:
        root: YamlNode | None = None
        try:
            root = self._documents_root()
        except yaml.MarkedYAMLError as error:
            self._problems.append(_syntax_problem(error))
        except yaml.YAMLError as error:
            # libyaml's reader, before there are lines: a control character.
            sentence = f"not YAML: {str(error).splitlines()[0]}"
            self._problems.append(YamlProblem(Mark(1, 1), "YAML_SYNTAX", sentence))
        except _EndOfReadingError:
            root = None
        return ParsedYaml(root, sorted(self._problems))

    def _documents_root(self) -> YamlNode | None:
        root: YamlNode | None = None
        while (event := self._next_event()) is not None:
            if isinstance(event, yaml.DocumentStartEvent):
                self._documents += 1
                if self._documents > 1:
                    self._refuse(event, "YAML_ONE_DOCUMENT", "a second document; use one file each")
                    return root
                if event.version or event.tags:
                    self._refuse(event, "YAML_NO_DIRECTIVES", "a YAML directive; remove it")
            elif isinstance(event, yaml.NodeEvent):
                root = self._tree(event)
        return root

    def _tree(self, first: yaml.Event) -> YamlNode:
        """Read one node with everything inside it, given its first event."""
        root = self._open(first)
        if isinstance(root, YamlScalar):
            return root
        stack: list[YamlSequence | YamlMapping] = [root]
        keys: list[YamlScalar | None] = [
            None
        ]  # per open collection: the key that waits for a value
        while stack:
            event = self._next_event()
            if event is None or isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
                keys.pop()
                continue
            node = self._open(event)
            top, key = stack[-1], keys[-1]
            if isinstance(top, YamlSequence):
                top.items.append(node)
            elif key is None:
                keys[-1] = self._key(node)
            else:
                self._enter(top, key, node)
                keys[-1] = None
            if not isinstance(node, YamlScalar):
                if len(stack) >= DEPTH_MAX:
                    self._end(node.mark, "YAML_DEPTH_BOUNDED", f"nesting deeper than {DEPTH_MAX}")
                stack.append(node)
                keys.append(None)
        return root

    def _open(self, event: yaml.Event) -> YamlNode:
        mark = _mark_of(event)
        self._nodes += 1
        if self._nodes > NODES_MAX:
            sentence = f"more than {NODES_MAX} keys and values; split the file"
            self._end(mark, "YAML_NODES_BOUNDED", sentence)
        if isinstance(event, yaml.ScalarEvent):
            if event.anchor is not None or event.tag is not None:
                self._refuse_properties(event)
            # libyaml says "" for a plain scalar, the pure Python parser None.
            return YamlScalar(mark, event.value, not event.style)
        if isinstance(event, yaml.CollectionStartEvent):
            if event.anchor is not None or event.tag is not None:
                self._refuse_properties(event)
            if isinstance(event, yaml.SequenceStartEvent):
                return YamlSequence(mark, [])
            return YamlMapping(mark, {})
        sentence = f"alias `*{shown(str(getattr(event, 'anchor', '')))}`; write the value out"
        self._add(mark, "YAML_NO_ALIASES", sentence)
        return YamlScalar(mark, "", plain=False)

    def _key(self, node: YamlNode) -> YamlScalar:
        if not isinstance(node, YamlScalar):
            sentence = "a list or mapping as a key; a key is a name"
            self._add(node.mark, "YAML_KEY_IS_NAME", sentence)
            return _NO_KEY
        if node.plain and node.text == "<<":
            sentence = "merge key `<<`; write the members out"
            self._add(node.mark, "YAML_NO_MERGE_KEYS", sentence)
            return _NO_KEY
        if is_ambiguous(node) or (node.plain and node.text in _WORDS):
            self._add(*ambiguity(node))
        elif len(node.text) > KEY_LENGTH_MAX:
            sentence = f"key `{shown(node.text)}` is longer than {KEY_LENGTH_MAX} characters"
            self._add(node.mark, "YAML_KEY_LENGTH", sentence)
        return node

    def _enter(self, mapping: YamlMapping, key: YamlScalar, value: YamlNode) -> None:
        if key is _NO_KEY:
            return
        earlier = mapping.entries.get(key.text)
        if earlier is None:
            mapping.entries[key.text] = (key.mark, value)
            return
        sentence = f"`{shown(key.text)}` is already given on line {earlier[0].line}"
        self._add(key.mark, "YAML_NO_DUPLICATE_KEYS", sentence)

    def _refuse_properties(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            sentence = f"anchor `&{shown(event.anchor)}`; remove it"
            self._refuse(event, "YAML_NO_ALIASES", sentence)
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(event, "YAML_NO_TAGS", f"tag `{shown(tag)}`; remove it")

    def _refuse(self, event: yaml.Event, rule: str, sentence: str) -> None:
        self._add(_mark_of(event), rule, sentence)

    def _add(self, mark: Mark, rule: str, sentence: str) -> None:
        self._problems.append(YamlProblem(mark, rule, sentence))
        if len(self._problems) == PROBLEMS_MAX:
            raise _EndOfReadingError

    def _end(self, mark: Mark, rule: str, sentence: str) -> NoReturn:
        self._problems.append(YamlProblem(mark, rule, sentence))
        raise _EndOfReadingError


def _mark_of(event: yaml.Event) -> Mark:
    start = event.start_mark
    # Optional in the stubs; every parsed event has one.
    return Mark(1, 1) if start is None else Mark(start.line + 1, start.column + 1)


_NO_KEY: Final = YamlScalar(Mark(1, 1), "", plain=False)
"""Stands for a key that was refused: what it leads to is read and left out."""


class _EndOfReadingError(Exception):
    """Ends the reading of a file: what follows is not worth a look."""


def _syntax_problem(error: yaml.MarkedYAMLError) -> YamlProblem:
    mark = error.problem_mark or error.context_mark
    place = Mark(mark.line + 1, mark.column + 1) if mark is not None else Mark(1, 1)
    context = f" {error.context}" if error.context else ""
    return YamlProblem(place, "YAML_SYNTAX", f"not YAML: {error.problem}{context}")
