"""`python -m roadmap`, and where the command `roadmap` begins."""

import sys


def main() -> int:
    """The command; Ctrl-C while it is still being imported is no traceback either."""
    try:
        from roadmap.cli import main as command

        return command()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
