"""One request from its headers to its answer: its log line, and its spans."""
