"""Pull, verify, write: everything slow or dangerous, in a separate process, before traffic."""
