"""``circuit-script dev``: everything that serve does, and it follows the app's files."""
