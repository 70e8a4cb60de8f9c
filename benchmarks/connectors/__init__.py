"""What connectors, and what is known from outside, cost."""
