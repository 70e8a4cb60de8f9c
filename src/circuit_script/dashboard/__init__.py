"""The web door for people: one page per noun, in a process of its own."""
