"""Database servers for tests: each in a directory of its own, on a free port of 127.0.0.1, ended with the session.

Durability is off: what is tested is what processes do to each other, and no test cuts the power.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from pathlib import Path

#: Seconds in which a server must answer.
PATIENCE = 60.0


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _account(name: str) -> dict[str, int]:
    """Return how to start a process as another user: servers refuse to be root."""
    if os.getuid() != 0:
        return {}
    entry = pwd.getpwnam(name)
    return {"user": entry.pw_uid, "group": entry.pw_gid}


class Server(ABC):
    """A server that can be started, stopped, killed, and started again with what it holds."""

    user = ""

    def __init__(self) -> None:
        self.port = free_port()
        # Short: a socket's path has 107 bytes at most.
        self.directory = Path(tempfile.mkdtemp(prefix="soc-", dir="/tmp"))
        self.directory.chmod(0o755)
        self._as = _account(self.user)
        if self._as:
            os.chown(self.directory, self._as["user"], self._as["group"])
        self.process: subprocess.Popen[bytes] | None = None
        self._count = 0
        try:
            self.create()
            self.start()
        except BaseException:
            self.end()
            raise

    @abstractmethod
    def create(self) -> None:
        """Make the empty cluster."""

    @abstractmethod
    def command(self) -> list[str]:
        """Return what runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it takes connections."""

    @abstractmethod
    def options(self, name: str) -> dict:
        """Return the entry of DATABASES for a database of this server."""

    @abstractmethod
    def execute(self, statement: str) -> None:
        """Run a statement as the administrator."""

    def call(self, *command: str) -> None:
        """Run a program of the server's to its end."""
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.directory, timeout=PATIENCE, check=False, **self._as
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory, **self._as
            )
        pause, left = threading.Event(), PATIENCE
        while not self.answers():
            assert self.process.poll() is None, (self.directory / "server.log").read_text()
            assert left > 0, f"{self.command()[0]} does not answer"
            pause.wait(0.05)
            left -= 0.05

    def stop(self, number: int = signal.SIGINT) -> None:
        """End it, connections included; SIGKILL for a crash."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(PATIENCE)
        self.process = None

    def end(self) -> None:
        """Stop it and remove what it held."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def create_database(self) -> str:
        """Make an empty database; return its name."""
        self._count += 1
        name = f"soc_{self._count}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, whoever is connected."""
        self.execute(f"DROP DATABASE IF EXISTS {name}")


class PostgresServer(Server):
    """PostgreSQL, by initdb and postgres."""

    user = "postgres"

    @staticmethod
    def find(program: str) -> str | None:
        """Return where a program of the server is: on the PATH, or where Debian keeps it."""
        if path := shutil.which(program):
            return os.path.realpath(path)
        found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{program}"))
        return found[-1] if found else None

    @classmethod
    def missing(cls) -> str | None:
        """Return what is missing and how to get it, or None."""
        if cls.find("initdb") is None:
            return "PostgreSQL's server; install it with: apt-get install postgresql"
        return _missing_module("psycopg", "psycopg[binary]")

    def _program(self, name: str) -> str:
        # postgres itself is not always on the PATH, but always beside initdb.
        return str(Path(self.find("initdb") or "").with_name(name))

    def create(self) -> None:
        data = str(self.directory / "data")
        self.call(
            self._program("initdb"), "-D", data, "-U", "soc", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"
        )

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": 200,
            "deadlock_timeout": "200ms",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._program("postgres"), "-D", str(self.directory / "data"), *options]

    def answers(self) -> bool:
        import psycopg

        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _connect(self):
        import psycopg

        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="soc", dbname="postgres", autocommit=True, connect_timeout=5
        )

    def execute(self, statement: str) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def drop_database(self, name: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def options(self, name: str) -> dict:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "USER": "soc",
            "PASSWORD": "",
            "OPTIONS": {"connect_timeout": 5},
        }


class MariaServer(Server):
    """MariaDB, by mariadb-install-db and mariadbd; with MySQL's default of names that do not tell case apart."""

    user = "mysql"

    @staticmethod
    def find(program: str) -> str | None:
        """Return where a program of the server is: not every user has /usr/sbin on the PATH."""
        return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")

    @classmethod
    def missing(cls) -> str | None:
        """Return what is missing and how to get it, or None."""
        if cls.find("mariadbd") is None or cls.find("mariadb-install-db") is None:
            return "MariaDB's server; install it with: apt-get install mariadb-server"
        return _missing_module("MySQLdb", "mysqlclient")

    def create(self) -> None:
        self.call(
            self.find("mariadb-install-db") or "",
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )

    def command(self) -> list[str]:
        return [
            self.find("mariadbd") or "",
            "--no-defaults",
            f"--datadir={self.directory / 'data'}",
            f"--socket={self.directory / 'sock'}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            # At each commit to the system, which outlives a server that is killed.
            "--innodb-flush-log-at-trx-commit=2",
            "--skip-log-bin",
            "--max-connections=200",
            "--character-set-server=utf8mb4",
            "--collation-server=utf8mb4_general_ci",
            # A replaced server must not let its callers wait for names.
            "--skip-name-resolve",
        ]

    def answers(self) -> bool:
        import MySQLdb

        try:
            self._connect().close()
        except MySQLdb.OperationalError:
            return False
        return True

    def _connect(self):
        import MySQLdb

        return MySQLdb.connect(host="127.0.0.1", port=self.port, user="root", connect_timeout=5, autocommit=True)

    def execute(self, statement: str) -> None:
        with contextlib.closing(self._connect()) as connection:
            connection.query(statement)

    def stop(self, number: int = signal.SIGTERM) -> None:
        super().stop(signal.SIGTERM if number == signal.SIGINT else number)

    def end(self) -> None:
        self.stop(signal.SIGKILL)
        super().end()

    def options(self, name: str) -> dict:
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": name,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "USER": "root",
            "PASSWORD": "",
            "OPTIONS": {"charset": "utf8mb4", "connect_timeout": 5},
        }


def _missing_module(name: str, package: str) -> str | None:
    import importlib.util

    if importlib.util.find_spec(name) is None:
        return f"the module {name}; install it with: pip install '{package}'"
    return None


SERVERS: dict[str, type[Server]] = {"postgresql": PostgresServer, "mariadb": MariaServer}


#: Names the vendor for the test site's own databases, and gives the entries of DATABASES as JSON.
VARIABLE = "SOC_TASKS_TEST_DATABASES"


def main(arguments: list[str]) -> int:
    """Run a command while a server serves the test site's databases: `python -m tests.servers mariadb pytest …`."""
    vendor, *command = arguments
    if missing := SERVERS[vendor].missing():
        demanded = os.environ.get("SOC_TASKS_REQUIRE_ALL") == "1"
        print(f"{'missing' if demanded else 'left out, missing'}: {missing}", file=sys.stderr)
        return int(demanded)
    server = SERVERS[vendor]()
    try:
        databases = {alias: server.options(f"soc_{alias}") for alias in ("default", "other")}
        return subprocess.run(command, env={**os.environ, VARIABLE: json.dumps(databases)}, check=False).returncode
    finally:
        server.end()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
