"""SASL mechanisms without I/O: octets in, the next step out."""
