"""Routes requests to versions: champion, challenger, and a shadow that is only compared."""
