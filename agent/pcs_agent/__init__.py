"""The agent: events → signals → build → sign → outbox → deliver. Read `pcs_agent.pipeline` first."""
