"""What is derived from records: tables, and what charts show beside them."""
