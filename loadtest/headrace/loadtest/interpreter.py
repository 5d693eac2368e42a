"""Which build of Python ran a bench: one version can differ by a third between two builds of it."""

from __future__ import annotations

import platform
import sysconfig
import time

LOOP_ROUNDS = 7
LOOP_STEPS = 100_000


def interpreter() -> str:
    """Version, compiler, and whether it was configured with profile-guided optimization.

    What `configure` was not told cannot be seen here: Debian optimizes its build by other means.
    So results hold `loop_ms` too, which tells two builds on one machine apart.
    """
    return told_of(
        platform.python_version(),
        platform.python_compiler(),
        str(sysconfig.get_config_var("CONFIG_ARGS") or ""),
    )


def told_of(version: str, compiler: str, configured: str) -> str:
    """The same of the options that `configure` was given, as one text."""
    optimized = "with" if "--enable-optimizations" in configured else "without"
    return f"{version} ({compiler}, configured {optimized} --enable-optimizations)"


def loop_ms() -> float:
    """CPU time of a fixed piece of pure Python, the least of a few."""
    return round(min(_timed_ms() for _ in range(LOOP_ROUNDS)), 1)


def _timed_ms() -> float:
    started = time.process_time()
    sums: dict[str, int] = {}
    for step in range(LOOP_STEPS):
        name = str(step % 97)
        sums[name] = sums.get(name, 0) + step * 3
    return (time.process_time() - started) * 1_000
