"""`edgezo chat`: a conversation in the terminal. Its settings, its commands, its lines."""
