"""Find what a model draws unasked, and make removal cases of it."""
