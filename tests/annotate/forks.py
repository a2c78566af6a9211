"""Runs `annotate` commands in fresh processes without importing it anew each time, which is most of what one takes.

One process imports everything and waits; each command runs in a fork of it, with the folder, the environment, standard
input and arguments that it is given. What a fork can't show, such as what an import costs or whether the script is
installed, is for tests that run the real script (COMMAND in conftest.py), as all servers here do.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CODE = "import sys; from tests.annotate.forks import wait; wait(int(sys.argv[1]))"
ROOT = Path(__file__).parent.parent.parent


class Forks:
    """Where commands are forked; it is started with the first one, and ends when its listening socket is closed."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.address = f"{self.folder.name}/socket"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.address)
        listener.listen(64)
        command = [sys.executable, "-c", CODE, str(listener.fileno())]
        self.process = subprocess.Popen(command, cwd=ROOT, pass_fds=[listener.fileno()])
        listener.close()

    def run(self, words: list[str], cwd: Path, environment: dict[str, str], data: bytes) -> tuple[int, bytes, bytes]:
        """(exit code, standard output, standard error) of one command."""
        with _file() as given, _file() as out, _file() as err, socket.socket(socket.AF_UNIX) as connection:
            os.write(given, data) if data else None
            os.lseek(given, 0, os.SEEK_SET)
            connection.connect(self.address)
            request = json.dumps({"words": words, "cwd": str(cwd), "environment": environment}).encode()
            socket.send_fds(connection, [len(request).to_bytes(4, "big")], [given, out, err])
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            code = int(connection.makefile().read())
            return code, _all(out), _all(err)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()


@contextmanager
def _file() -> Iterator[int]:
    with tempfile.TemporaryFile(buffering=0) as file:
        yield file.fileno()


def _all(file: int) -> bytes:
    os.lseek(file, 0, os.SEEK_SET)
    with open(file, "rb", closefd=False) as reader:
        return reader.read()


# --- in the process that waits ----------------------------------------------------------------------------------


def wait(listening: int) -> None:
    import pkgutil
    import signal

    import alembic.command  # noqa: F401
    import argon2  # noqa: F401

    import annotate.cli
    import annotate.services

    for module in pkgutil.iter_modules(annotate.services.__path__, "annotate.services."):
        __import__(module.name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those below
    listener = socket.socket(fileno=listening)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _serve(connection)
        connection.close()


def _serve(connection: socket.socket) -> None:
    """Run what one connection asks for in a fork, say its exit code, and end."""
    import signal

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 4, 3)
    request = json.loads(connection.makefile("rb").read())
    child = os.fork()
    if child == 0:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["environment"])
        _command(request["words"])
    status = os.waitpid(child, 0)[1]
    connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _command(words: list[str]) -> None:
    """What the script `annotate` does, in this process, which ends with it."""
    import atexit
    import traceback

    from annotate.cli import main

    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["annotate", *words]
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        if code == 1 and isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)
