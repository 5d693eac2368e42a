"""Writing adapters of the online stores: cells, catalog, tables and sync state."""
