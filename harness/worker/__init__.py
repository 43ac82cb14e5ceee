"""In the worker's process: one backend, its turns, its clock."""
