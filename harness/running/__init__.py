"""Running plans: blocks, workers and their turns, on one machine or many."""
