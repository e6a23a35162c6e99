"""What a person reads: plots, the model card, the report."""
