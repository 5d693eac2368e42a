"""How long `headrace check` thinks: 100 files of 20 fields, and every hostile file.

Run `python tests/bench/registry_check.py`; prints CPU milliseconds (median and best of 20) and the
slowest hostile file. `make test` asserts no time (semantics 31).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from headrace.registry.load import load_texts

ROUNDS = 20
HOSTILE = Path(__file__).parents[1] / "hostile" / "registry"


def registry_of(files: int, fields: int) -> dict[str, bytes]:
    """A registry like those that people write."""
    columns = "".join(
        f'    field_{index}: {{type: Long, description: "Some words", default_value: {index}}}\n'
        for index in range(fields)
    )
    return {
        f"features/{number}.yaml": (
            f"live::group-{number}-v1:\n"
            "  feature_type: Object\n"
            '  owner: "someone"\n'
            '  description: "Some words"\n'
            "  schema:\n"
            "    user_id: {type: Text, is_key_field: true}\n"
            f"{columns}"
            "  ttl: 30d\n"
            "  max_age: 2h\n"
        ).encode()
        for number in range(files)
    }


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return (time.process_time() - started) * 1000


def best_of_three(texts: dict[str, bytes]) -> float:
    return min(cpu_ms(lambda: load_texts(texts)) for _ in range(3))


def main() -> None:
    texts = registry_of(files=100, fields=20)
    assert load_texts(texts).findings == []
    times = [cpu_ms(lambda: load_texts(texts)) for _ in range(ROUNDS)]
    print(
        f"100 files of 20 fields, {sum(map(len, texts.values())) // 1024} KiB: "
        f"median {statistics.median(times):.1f} ms, best {min(times):.1f} ms"
    )
    hostile = {
        path.relative_to(HOSTILE).as_posix(): path.read_bytes()
        for path in HOSTILE.glob("features/*.yaml")
    }
    slowest = max((best_of_three({path: text}), path) for path, text in hostile.items())
    print(f"{len(hostile)} hostile files: slowest {slowest[0]:.1f} ms ({slowest[1]})")


if __name__ == "__main__":
    main()
