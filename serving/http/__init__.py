"""What a connection sees: routes, pages, probes, the webhook."""
