"""One module per outside language: event -> service call -> reply."""
