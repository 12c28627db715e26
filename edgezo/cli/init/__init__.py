"""`edgezo init`: five questions, and the file of settings that answers them."""
