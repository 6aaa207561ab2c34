"""Pictures that people have already: read, paired with their twins, scored; and runs exported."""
