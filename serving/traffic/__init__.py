"""Which version answers a request: champion, challenger, and the shadow that is only compared."""
