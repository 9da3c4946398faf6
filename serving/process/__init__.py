"""Process-level concerns: processors, memory, threads, logs, graceful shutdown."""
