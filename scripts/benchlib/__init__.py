"""What scripts/bench is made of: guests, one module a group of measurements, and the report."""
