"""In whose company a request is asked: rows of several requests share one call of the model where that pays."""
