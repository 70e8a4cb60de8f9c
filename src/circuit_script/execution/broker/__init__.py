"""What children ask of the trusted side: counted, bounded, journaled."""
