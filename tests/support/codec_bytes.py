"""The byte format once more, in plain Python: what tests hold the Rust codec against.

Written from the tables of `rust_codec/core/src/format.rs`, sharing no code with it.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

CELL_LAYOUT = 1
BLOCK_LAYOUT = 1
SINGLE_OBJECT_MARKER = b"\xc3\x01"
BLOCK_ABSENT, BLOCK_HISTORY = 1, 2


def _crc32c_table() -> list[int]:
    table: list[int] = []
    for byte in range(256):
        remainder = byte
        for _ in range(8):
            remainder = (remainder >> 1) ^ (0x82F63B78 if remainder & 1 else 0)
        table.append(remainder)
    return table


_TABLE = _crc32c_table()


def crc32c(text: bytes) -> int:
    """Castagnoli's CRC (RFC 3720, appendix B.4)."""
    remainder = 0xFFFFFFFF
    for byte in text:
        remainder = (remainder >> 8) ^ _TABLE[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF


class OpenedCell(NamedTuple):
    """A cell's parts."""

    write_timestamp: int
    fingerprint: int
    body: bytes


def seal_cell(write_timestamp: int, fingerprint: int, body: bytes) -> bytes:
    """A cell around an Avro body."""
    rest = struct.pack("<q", write_timestamp) + SINGLE_OBJECT_MARKER
    rest += struct.pack("<Q", fingerprint) + body
    return bytes([CELL_LAYOUT]) + struct.pack("<I", crc32c(bytes([CELL_LAYOUT]) + rest)) + rest


def open_cell(cell: bytes) -> OpenedCell:
    """The parts of a cell whose layout and checksum are right; AssertionError otherwise."""
    assert cell[0] == CELL_LAYOUT
    (checksum, write_timestamp) = struct.unpack_from("<Iq", cell, 1)
    assert checksum == crc32c(cell[:1] + cell[5:])
    assert cell[13:15] == SINGLE_OBJECT_MARKER
    (fingerprint,) = struct.unpack_from("<Q", cell, 15)
    return OpenedCell(write_timestamp, fingerprint, cell[23:])


class OpenedBlock(NamedTuple):
    """A block's fixed parts."""

    flags: int
    key_digest: int
    newest_event_time_ms: int
    oldest_event_time_ms: int
    rest: bytes


def open_block(block: bytes) -> OpenedBlock:
    """The parts of a block whose layout and checksum are right; AssertionError otherwise."""
    layout, flags, checksum, digest, newest, oldest = struct.unpack_from("<BBIQqq", block)
    assert layout == BLOCK_LAYOUT
    assert checksum == crc32c(block[:2] + block[6:])
    return OpenedBlock(flags, digest, newest, oldest, block[30:])
