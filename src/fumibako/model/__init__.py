"""The nouns of the mail system: frozen values with no behaviour beyond their own invariants."""
