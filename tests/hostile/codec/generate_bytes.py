"""Write `bytes.ndjson`: stored bytes that must be refused, each with the threat it stands for.

    cd tests/hostile/codec
    PYTHONPATH=../../support python generate_bytes.py > bytes.ndjson

Checksums are right unless the threat is a wrong one, so that what is behind them is reached.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator

from codec_bytes import SINGLE_OBJECT_MARKER, crc32c, seal_cell

STAMP = 1_700_000_000_000_123
UNKNOWN = 0x0123456789ABCDEF


def body_cases() -> Iterator[tuple[str, str, bytes]]:
    """Type, threat and the bytes of one field of it."""
    yield "Boolean", "nothing at all", b""
    yield "Boolean", "a boolean that is 2", b"\x02"
    yield "Boolean", "a byte behind the record", b"\x01\x00"
    yield "Integer", "an int of 33 bits", b"\x80\x80\x80\x80\x10"
    yield "Integer", "an int that never ends", b"\x80" * 4
    yield "Long", "a varint of eleven bytes", b"\x80" * 10 + b"\x01"
    yield "Long", "a varint of ten bytes with 65 bits", b"\xff" * 9 + b"\x02"
    yield "Long", "a varint cut in the middle", b"\xff\xff"
    yield "Float", "three bytes of four", b"\x00\x00\x80"
    yield "Double", "seven bytes of eight", b"\x00" * 7
    yield "Text", "a length beyond the end", b"\x0aabc"
    yield "Text", "a negative length", b"\x01"
    yield "Text", "a length of 2^62", b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f" + b"a" * 64
    yield "Text", "a lone continuation byte", b"\x02\x80"
    yield "Text", "an overlong slash", b"\x04\xc0\xaf"
    yield "Text", "half of a surrogate pair in UTF-8", b"\x06\xed\xa0\x80"
    yield "Text", "beyond the last code point", b"\x08\xf4\x90\x80\x80"
    yield (
        "Text",
        "cut in the middle of a character, behind 16 plain ones",
        b"\x22" + b"a" * 16 + b"\xe2",
    )
    yield "Bytes", "a length beyond the end", b"\x10\x00"
    yield "List<Long>", "no end marker", b"\x02\x02"
    yield "List<Long>", "2^62 items in nine bytes", b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"
    yield "List<Long>", "the most negative item count", b"\xff" * 9 + b"\x01" + b"\x02\x00"
    yield "List<Long>", "a block size beyond the end", b"\x01\x64\x02\x00"
    yield "Vector<2>", "no items", b"\x00"
    yield "Vector<2>", "one item too few", b"\x02" + b"\x00" * 4 + b"\x00"
    yield "Vector<2>", "one item too many", b"\x06" + b"\x00" * 12 + b"\x00"


def cell_cases(cell: bytes) -> Iterator[tuple[str, bytes]]:
    """Threat and bytes, from a good cell of one Long."""
    yield "an empty cell", b""
    yield "a layout version of tomorrow", b"\x02" + cell[1:]
    yield "a layout version of nought", b"\x00" + cell[1:]
    yield "a checksum of zero", cell[:1] + b"\0\0\0\0" + cell[5:]
    yield "a header alone", cell[:13]
    yield "no body", seal_cell(STAMP, UNKNOWN, b"")[:23]
    yield "a byte more at the end", cell + b"\0"
    yield "a fingerprint that nobody registered", seal_cell(STAMP, UNKNOWN, cell[23:])
    yield "an Avro container file in place of a single object", sealed(b"Obj\x01" + cell[15:])
    yield "JSON text in place of bytes", b'{"value":1}'
    yield "compressed text in place of bytes", bytes.fromhex("1f8b0800000000000003")


def sealed(single_object: bytes) -> bytes:
    """A cell around anything in place of the single-object encoding."""
    rest = struct.pack("<q", STAMP) + single_object
    return b"\x01" + struct.pack("<I", crc32c(b"\x01" + rest)) + rest


def block_cases() -> Iterator[tuple[str, bytes]]:
    """Threat and bytes."""
    yield "an empty block", b""
    yield "a layout version of tomorrow", b"\x02" + block(0, b"\x01" + record(UNKNOWN))[1:]
    yield "flags of tomorrow", block(4, b"")
    yield "an absent row that has a History", block(3, b"\0\0")
    yield "an absent row with bytes behind it", block(1, b"\0")
    yield "a record of a schema that nobody registered", block(0, b"\x01" + record(UNKNOWN))
    yield "a record without a bitmap", block(0, record(UNKNOWN))
    yield "a History that counts one event and has none", block(2, b"\x01\x00")
    yield "a History of 65,535 events in no bytes", block(2, b"\xff\xff")
    yield "an event with a length of 4 GiB", block(2, b"\x01\x00" + b"\0" * 8 + b"\xff" * 4)
    yield (
        "an event too short for its own header",
        block(2, b"\x01\0" + b"\0" * 8 + b"\x01\0\0\0" + b"\xc3"),
    )
    yield (
        "an event without the single-object marker",
        block(2, b"\x01\0" + b"\0" * 8 + b"\x0a\0\0\0" + b"\0" * 10),
    )
    yield "a byte behind the last event", block(2, b"\0\0\0")


def record(fingerprint: int) -> bytes:
    """A single object of one Long."""
    return SINGLE_OBJECT_MARKER + struct.pack("<Q", fingerprint) + b"\x02"


def block(flags: int, rest: bytes) -> bytes:
    """A block with a right checksum."""
    tail = struct.pack("<Qqq", 7, 1, 1) + rest
    head = bytes([1, flags])
    return head + struct.pack("<I", crc32c(head + tail)) + tail


def main() -> None:
    """Print one case a line; bodies are bare, the tests seal them under their own schemas."""
    good = seal_cell(STAMP, UNKNOWN, b"\x02")
    for kind, threat, body in body_cases():
        told = {"entry": "body", "type": kind, "threat": threat, "bytes": body.hex()}
        sys.stdout.write(json.dumps(told) + "\n")
    for entry, cases in (("cell", cell_cases(good)), ("block", block_cases())):
        for threat, text in cases:
            told = {"entry": entry, "threat": threat, "bytes": text.hex()}
            sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
