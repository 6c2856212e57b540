"""The tests, one folder per room of src/fumibako; see docs/architecture.md."""
