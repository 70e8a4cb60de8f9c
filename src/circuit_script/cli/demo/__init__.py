"""``circuit-script demo``: a whole installation on free loopback ports, and a vendor that sends to it."""
