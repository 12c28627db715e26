"""`edgezo runs`: a table of runs, a single one, and their removal."""
