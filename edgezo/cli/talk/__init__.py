"""What `edgezo chat` and `edgezo serve` share: a bundle and its adapters, within a budget."""
