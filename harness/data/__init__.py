"""Data: found, checked, kept."""
