"""Leave out one tag of a negative prompt at a time, and say what each tag does."""
