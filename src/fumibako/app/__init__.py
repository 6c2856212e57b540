"""The front door: reads the configuration, builds everything, runs it, stops it."""
