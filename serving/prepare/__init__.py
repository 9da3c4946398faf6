"""Pull, verify, write: everything slow or dangerous, in a process of its own, before traffic."""
