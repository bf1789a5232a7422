"""The command line's entry point: what a signal does is settled before much is imported."""

import os
import sys

from bench.runtime import signals, streams

OWNER = 0o700  # permissions of a file's owner


def main() -> None:
    """Run the command line; Ctrl-C and SIGTERM end it by one line, while it is imported too."""
    signals.end_at_once(sys.argv[1:])
    streams.open_closed()
    from bench.runtime import variables

    variables.remove_deciding(os.environ)
    os.umask(os.umask(0) & ~OWNER)  # what a run writes, it must read
    streams.shorten_threads_errors()
    from bench import cli

    cli.main()


if __name__ == "__main__":
    main()
