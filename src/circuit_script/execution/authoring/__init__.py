"""What an author writes with: declarations, context, records, CircuitDB, http, llm, jobs, log."""
