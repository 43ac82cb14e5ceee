"""What people see: summaries, charts, pages."""
