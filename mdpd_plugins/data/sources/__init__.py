"""Source types: where labelled examples are read from."""
