"""After release: one file per failure mode, each answers with Checks."""
