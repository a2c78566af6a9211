"""What both commands say when the input is wrong: one sentence, exit code 2, no traceback."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from preferences.terminal import shown


class BadInput(ValueError):
    """The user's input is wrong. The message says what, where (file, line, key), and what to do."""


@contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """Turn a user's mistake into one line on stderr and exit code 2; Ctrl-C into exit code 130."""
    try:
        yield
    except BadInput as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            where = f" while writing {shown(str(error.filename))}" if error.filename else ""
            print(f"error: no space left on the disk{where}; free some and run the command again", file=sys.stderr)
            sys.exit(2)
        raise
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
