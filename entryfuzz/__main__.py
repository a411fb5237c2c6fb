"""`python -m entryfuzz`."""

from entryfuzz.cli import main

if __name__ == "__main__":
    main()
