"""Which classes belong to training, validation and test."""
