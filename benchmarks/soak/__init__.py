"""A steady load for minutes, with failures in it: nothing may grow but the ledger."""
