"""The governed process: it waits for a run, calls the handler, and says how it ended."""
