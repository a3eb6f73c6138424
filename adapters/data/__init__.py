"""Data sets: found, read, checked and described, without any training library."""
