"""What a prepared model is: its schema, its files, and the state that processes share about it."""
