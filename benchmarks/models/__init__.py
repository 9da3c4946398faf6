"""Code that is logged with the benchmark's models."""
