"""What `replay.py` does: logged rows are sampled, asked again, and the answers compared."""
