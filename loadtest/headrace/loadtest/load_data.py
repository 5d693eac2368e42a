"""`python -m headrace.loadtest.load_data FOLDER`: an online store with the load data in it."""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.loadtest import feature_data


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m headrace.loadtest.load_data FOLDER", file=sys.stderr)
        return 64
    folder = Path(sys.argv[1])
    feature_data.write_store(folder, wide_rows=feature_data.WIDE_ROWS)
    print(
        f"{feature_data.ROWS} rows of 20 fields, {feature_data.WIDE_ROWS} of 250 and "
        f"{feature_data.HISTORIES} Histories are in {folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
