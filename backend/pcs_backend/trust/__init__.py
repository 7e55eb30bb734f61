"""Who may say what: keys, request signatures, client certificates, tenants and their limits."""
