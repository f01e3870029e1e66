"""Captures: each turns a foreign shape (a ``LogRecord``, a structlog event) into an audit record.

Importing this package imports neither structlog nor anything that talks to a network.
"""
