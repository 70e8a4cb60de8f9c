"""The process that imports the app once, and what makes children of it."""
