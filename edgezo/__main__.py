"""`python -m edgezo`."""

from edgezo.cli import main

if __name__ == "__main__":
    main(prog_name="edgezo")
