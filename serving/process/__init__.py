"""What a process needs whatever it does: processors, memory, threads, logs, an orderly end."""
