"""First write wins: what was answered to a record is remembered, and answered again."""
