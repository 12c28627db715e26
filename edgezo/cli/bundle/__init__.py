"""`edgezo bundle`: what a bundle holds, and the same model with smaller weights."""
