"""Before release: one file per question, each answers with Checks."""
