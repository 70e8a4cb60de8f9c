"""Replay: past events chosen by a filter, put back on the queue behind what arrives, and what became of them."""
