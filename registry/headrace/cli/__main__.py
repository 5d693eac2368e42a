"""`python -m headrace.cli` is `headrace`."""

from headrace.cli.main import main

main(prog_name="headrace")
