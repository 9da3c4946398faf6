"""What the registry says: which version an alias or a stage names."""
