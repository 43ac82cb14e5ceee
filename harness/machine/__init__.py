"""The machine: what it is, what it can do at best, and what else it did meanwhile."""
