"""Real servers on this machine without containers, for tests, benchmarks and the example.

Jars come from Maven Central once, into the cache folder; Valkey comes with a PyPI wheel. Every
server listens on loopback only, on a free port, keeps its files in a folder of its own, and is
ended by its process id.
"""

from headrace.loadtest.servers.cassandra import start_cassandra
from headrace.loadtest.servers.kafka import start_kafka
from headrace.loadtest.servers.process import Server, ServerFailed
from headrace.loadtest.servers.valkey import start_valkey

__all__ = ["Server", "ServerFailed", "start_cassandra", "start_kafka", "start_valkey"]
