"""Fumibako: a whole mail server in one program."""

__version__ = "0.0.1"
