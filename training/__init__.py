"""What is learnt from data, once, and shipped as numbers."""
