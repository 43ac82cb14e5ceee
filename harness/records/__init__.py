"""What is recorded, and the files that it is in."""
