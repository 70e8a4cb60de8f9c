"""Stand-ins: vendors as they answer over HTTP, on this machine, for tests and for the demo."""
