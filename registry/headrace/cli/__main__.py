"""`python -m headrace.cli` is `headrace`."""

import sys


def start() -> None:
    """Run the command line, or say which extra brings it: the client is installed without."""
    try:
        from headrace.cli.main import main
    except ModuleNotFoundError as error:
        if error.name not in {"click", "yaml"}:
            raise
        sys.exit(
            f"error: the command line needs the Python package `{error.name}`, which is not "
            "installed; install `headrace[cli]`"
        )
    main(prog_name="headrace")


if __name__ == "__main__":
    start()
