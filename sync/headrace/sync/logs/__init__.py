"""Command logs: adapters of the log ports in `headrace.sync.ports`."""
