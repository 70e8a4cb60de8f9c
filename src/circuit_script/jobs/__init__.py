"""Jobs: what handlers enqueue and what runs by the clock, taken to the queue, each exactly once."""
