"""What a request leaves behind beside its outcome: counters and log lines. Nothing here changes a verdict."""
