"""The repository's own tools: each is run by the Makefile and checked by tests/architecture."""
