"""What `deploy/test` runs: every file of deploy/ with a real Docker engine, and checked load through it."""
