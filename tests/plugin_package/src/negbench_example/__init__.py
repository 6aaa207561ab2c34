"""A negbench plug-in."""
