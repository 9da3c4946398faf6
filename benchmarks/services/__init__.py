"""Code of the servers under test; it runs in their environments."""
