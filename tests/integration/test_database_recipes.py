"""The steps for databases in the documentation, on real servers: green for what was there, red for anything else."""

import json
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from clusterguard.drills.steps.exec import Exec

PAGE = Path(__file__).parents[2] / "docs/how-to/prove-databases.md"
POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
SOCKET = "server.sock"


def recipe(name, server):
    """Return the commands of `setup` and `verify` in one block of the page, with this server's folders in them."""
    blocks = (block.partition("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```yaml\n")[1:])
    (steps,) = (yaml.safe_load(block) for block in blocks if block.startswith(f"# {name}.steps.yaml"))
    commands = {
        phase: [Exec.model_validate_json(json.dumps(each["exec"])).command for each in found]
        for phase, found in steps.items()
    }
    ours = f"{server.folder}/data"
    return {
        phase: [[part.replace("/var/lib/mysql", ours) for part in each] for each in found]
        for phase, found in commands.items()
    }


class Server:
    """A database as a container has it: its programs on PATH, its variables set, and a user that is not root."""

    def __init__(self, folder, user, environment):
        self.folder, self._user, self._environment = folder, user, environment

    def run(self, *command, check=True):
        as_user = {"user": self._user} if os.geteuid() == 0 else {}
        return subprocess.run(
            command, check=check, env=self._environment, cwd=self.folder, capture_output=True, text=True, **as_user
        )

    def codes(self, commands):
        return [self.run(*command, check=False).returncode for command in commands]

    def spawn(self, *command):
        as_user = {"user": self._user} if os.geteuid() == 0 else {}
        return subprocess.Popen(command, env=self._environment, cwd=self.folder, **as_user)


@contextmanager
def folder_of(user):
    # pytest's own folders are closed to other users, and the path of a socket has little room.
    folder = Path(tempfile.mkdtemp(prefix="db-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, user)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def postgresql():
    if not POSTGRESQL:
        pytest.skip("NOT RUN: PostgreSQL is not installed (Debian: postgresql)")
    with folder_of("postgres") as folder:
        environment = {"PATH": f"{POSTGRESQL[0]}:/usr/bin:/bin", "PGDATA": str(folder / "data"), "PGHOST": str(folder)}
        server = Server(folder, "postgres", environment)
        server.run("initdb", "--username=postgres", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
        server.run("pg_ctl", "--wait", f"--log={folder}/log", f"--options={options}", "start")
        try:
            yield server
        finally:
            server.run("pg_ctl", "--wait", "--mode=immediate", "stop")


@pytest.fixture(scope="module")
def mariadb():
    if not shutil.which("mariadbd"):
        pytest.skip("NOT RUN: MariaDB is not installed (Debian: mariadb-server)")
    with folder_of("mysql") as folder:
        data = folder / "data"
        programs = folder / "bin"
        programs.mkdir(mode=0o755)
        for name, ours in {"mysql": "mariadb", "mysqlcheck": "mariadb-check"}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {ours} --no-defaults --socket={folder}/{SOCKET} "$@"\n')
            (programs / name).chmod(0o755)
        environment = {"PATH": f"{programs}:/usr/sbin:/usr/bin:/bin", "MYSQL_ROOT_PASSWORD": ""}
        server = Server(folder, "mysql", environment)
        server.run(
            "mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal"
        )
        running = server.spawn(
            "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={folder}/{SOCKET}", "--skip-networking"
        )
        try:
            server.run("mariadb-admin", f"--socket={folder}/{SOCKET}", "--wait=60", "--user=root", "ping")
            yield server
        finally:
            running.terminate()
            running.wait()


@pytest.fixture
def rows(postgresql):
    """The recipe for PostgreSQL, once its `setup` has run."""
    steps = recipe("postgresql", postgresql)
    assert postgresql.codes(steps["setup"]) == [0, 0]
    return steps["verify"]


def sql(server, text):
    server.run("psql", "--username=postgres", "--set=ON_ERROR_STOP=1", f"--command={text}")


def test_the_rows_of_a_postgresql_that_are_there_are_found(postgresql, rows):
    assert postgresql.codes(rows) == [0, 0]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE drill SET value = 'x' WHERE n = 5000",
        "DELETE FROM drill WHERE n = 1",
        "INSERT INTO drill VALUES (10001, 'x')",
        "TRUNCATE drill",
        "DROP TABLE drill",
    ],
)
def test_any_other_rows_of_a_postgresql_are_red(postgresql, rows, change):
    sql(postgresql, change)
    assert postgresql.codes(rows[:1]) != [0]


def test_the_rows_of_another_run_are_red(postgresql, rows):
    note = (postgresql.folder / "data/drill.sha256").read_text()
    assert postgresql.codes(recipe("postgresql", postgresql)["setup"]) == [0, 0]
    (postgresql.folder / "data/drill.sha256").write_text(note)
    assert postgresql.codes(rows[:1]) != [0]


def test_without_the_note_a_postgresql_is_red(postgresql, rows):
    (postgresql.folder / "data/drill.sha256").unlink()
    assert postgresql.codes(rows[:1]) != [0]


def test_dumps_of_the_same_rows_are_equal_with_a_key_of_ones_own_alone(postgresql, rows):
    def dump(*more):
        return postgresql.run("pg_dump", "--username=postgres", "--table=drill", *more).stdout

    assert dump() != dump()
    assert dump("--restrict-key=drill") == dump("--restrict-key=drill")


def test_orders_that_are_old_or_few_are_red(postgresql):
    (command,) = recipe("orders", postgresql)["verify"]
    sql(
        postgresql,
        "DROP TABLE IF EXISTS orders; CREATE TABLE orders AS SELECT now() AS placed FROM generate_series(1, 999)",
    )
    assert "orders are there" not in postgresql.run(*command).stdout
    sql(postgresql, "INSERT INTO orders VALUES (now())")
    assert "orders are there" in postgresql.run(*command).stdout
    sql(postgresql, "UPDATE orders SET placed = now() - interval '27 hours'")
    assert "orders are there" not in postgresql.run(*command).stdout


@pytest.fixture
def checked(mariadb):
    """The recipe for MySQL, once its `setup` has run."""
    steps = recipe("mysql", mariadb)
    assert mariadb.codes(steps["setup"]) == [0]
    return steps["verify"]


def test_the_rows_of_a_mariadb_that_are_there_are_found(mariadb, checked):
    assert mariadb.codes(checked) == [0, 0]


@pytest.mark.parametrize(
    "change", ["UPDATE drill.checked SET name = 'x' LIMIT 1", "TRUNCATE drill.checked", "DROP TABLE drill.checked"]
)
def test_any_other_rows_of_a_mariadb_are_red(mariadb, checked, change):
    mariadb.run("mysql", "--user=root", f"--execute={change}")
    assert mariadb.codes(checked[:1]) != [0]
