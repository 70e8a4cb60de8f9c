"""``circuit-script doctor``: one file per thing that is examined."""
