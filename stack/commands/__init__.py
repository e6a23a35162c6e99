"""The commands of `ratchet`, a file for each kind of question."""
