"""Run experiments: `python run.py --help`."""

from sah.cli.main import main

if __name__ == "__main__":
    main()
