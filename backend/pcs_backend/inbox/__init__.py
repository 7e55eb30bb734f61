"""The inbox: every request is on disk here before anything of it is parsed, and leaves only with an outcome."""
