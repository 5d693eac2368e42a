"""Reads: the HTTP application, the fast lane and the read path."""
