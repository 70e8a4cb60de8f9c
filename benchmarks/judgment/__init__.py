"""The judgment of untrusted texts: how well and how fast, beside three simpler ways."""
