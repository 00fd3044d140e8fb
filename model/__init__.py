"""Training side of bitsmith: bit search (EBS), retraining, and export to the integer network."""
