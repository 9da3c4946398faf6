"""Whether a version may be served: trust, the gate, and the comparison with the original."""
