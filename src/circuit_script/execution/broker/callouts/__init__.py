"""The parent's client of callouts: where one may go, how long it may take, and when it is tried again."""
