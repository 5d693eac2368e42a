"""The `headrace` command line: the only place where parts are put together."""
