"""Circuit Script inside of other frameworks."""
