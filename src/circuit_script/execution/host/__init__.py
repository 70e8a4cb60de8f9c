"""The parent of children: who runs what, what they may use, and what becomes of them."""
