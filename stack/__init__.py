"""The command line and the local processes."""
