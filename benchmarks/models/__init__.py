"""Code that travels with the benchmark's models."""
