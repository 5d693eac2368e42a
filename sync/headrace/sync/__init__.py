"""Writes: command logs, the writer, upsync, downsync and the offline stores."""
