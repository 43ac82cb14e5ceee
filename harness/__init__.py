"""The harness: data, schedule, clock, checks, records and reports."""
