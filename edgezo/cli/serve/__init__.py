"""`edgezo serve`: its settings, and the server that they make."""
