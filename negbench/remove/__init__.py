"""Take out of a picture what its prompt implies, and keep the rest: the adaptive window."""
