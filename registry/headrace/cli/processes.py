"""What long-running commands share: where their log goes."""

from __future__ import annotations

import logging
import sys


def log_to_stderr() -> None:
    """Our own log from INFO, libraries' from WARNING, one line a record."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("headrace").setLevel(logging.INFO)
