"""What accidents and neighbours cost, and whether anything was ever lost."""
