"""What governing costs, how fast a runaway is gone, and whether limits and money hold."""
