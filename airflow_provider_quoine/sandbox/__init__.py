"""A Quoine exchange on localhost to develop and test against; it is the other end of the wire."""
