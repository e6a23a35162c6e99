"""The lifecycle's logic: plain data in, plain data out."""
