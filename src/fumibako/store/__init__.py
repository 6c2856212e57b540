"""Durable state: one contract (base), engines behind it."""
