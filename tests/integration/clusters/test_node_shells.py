"""Commands on a node: on this host, through a real sshd on loopback, and what would be typed for each."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from clusterguard.clusters.node_shell import DockerNodeShell, LocalNodeShell, SshNodeShell, open_node_shell
from clusterguard.errors import ClusterError, ConfigError, ProgramError
from clusterguard.process import Attached


@contextlib.contextmanager
def lost_connection():
    with pytest.raises(ProgramError) as caught:
        yield
    assert caught.value.code == "node-connection-lost"


SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """A real SSH server on loopback that lets this user in by a key: its port and that key."""
    if not os.access(SSHD, os.X_OK) or not shutil.which("ssh-keygen"):
        pytest.skip("NOT RUN: no sshd here")
    folder = tmp_path_factory.mktemp("sshd")
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True, capture_output=True
        )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        f"PidFile {folder}/pid\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    wrapper = folder / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec ssh -o UserKnownHostsFile={known} -o IdentitiesOnly=yes "$@"\n')
    wrapper.chmod(0o700)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([SSHD, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        until = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < until, (folder / "log").read_text()
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.05)
        yield port, folder / "user", wrapper
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(params=["local", "ssh"])
def shell(request):
    if request.param == "local":
        return LocalNodeShell()
    port, key, ssh = request.getfixturevalue("sshd")
    return SshNodeShell("127.0.0.1", user=getpass.getuser(), port=port, identity=key, ssh=str(ssh), sudo=False)


def test_words_arrive_as_they_were_given(shell):
    words = ["two words", "a'b", 'a"b', "$HOME", "`id`", "*", ";", "\\", ""]
    assert shell.run(["printf", "%s\\n", *words]).split("\n")[:-1] == words


def test_standard_input_arrives(shell):
    assert shell.run(["wc", "-c"], stdin=bytes(range(256)) * 1000).strip() == "256000"


def test_a_failure_tells_the_node_the_program_its_code_and_its_words(shell):
    with pytest.raises(ProgramError) as caught:
        shell.run(["ls", "/nowhere"])
    assert (caught.value.exit_code, caught.value.fields) == (2, {"node": shell.name, "program": "ls"})
    assert "/nowhere" in caught.value.output
    assert caught.value.exit_code == 2


def test_a_command_that_takes_too_long_is_given_up(shell):
    with pytest.raises(ProgramError) as caught:
        shell.run(["sleep", "60"], timeout_seconds=0.5)
    assert (caught.value.code, caught.value.fields["seconds"]) == ("program-timed-out", 0.5)


def test_a_file_arrives_whole_with_its_permissions(shell, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3_000_000))
    target = tmp_path / "two words" / "target"
    target.parent.mkdir()
    shell.put(source, str(target), mode=0o640)
    assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()
    assert target.stat().st_mode & 0o777 == 0o640
    assert list(target.parent.iterdir()) == [target]


def test_a_file_that_is_there_is_replaced_at_once(shell, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("new")
    target.write_text("old")
    shell.put(source, str(target))
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_what_arrives_short_never_gets_the_name(tmp_path, monkeypatch):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("whole")
    monkeypatch.setattr(LocalNodeShell, "_argv", lambda _, argv: [*argv[:-1], "99"])  # as if more had been sent
    with pytest.raises(ProgramError):
        LocalNodeShell().put(source, str(target))
    assert not target.exists()


def test_bytes_are_read_as_they_are(shell, tmp_path):
    content = bytes(range(256)) * 40
    (tmp_path / "file").write_bytes(content)
    assert shell.read(str(tmp_path / "file")) == content
    with pytest.raises(ProgramError, match="No such file"):
        shell.read(str(tmp_path / "nowhere"))


def test_a_lock_excludes_others_and_ends_with_its_block(shell, tmp_path):
    lock = str(tmp_path / "lock")
    with shell.lock(lock), pytest.raises(ClusterError, match="another process holds"), shell.lock(lock):
        pass
    with shell.lock(lock):
        pass


def test_the_shell_that_holds_a_lock_runs_commands_as_any_other(shell, tmp_path):
    words = ["two words", "a'b", "$HOME", "\\", ""]
    with shell.lock(str(tmp_path / "lock")) as locked:
        assert locked.run(["printf", "%s\\n", *words]).split("\n")[:-1] == words
        assert locked.run(["true"]) == ""
        with pytest.raises(ProgramError) as caught:
            locked.run(["ls", "/nowhere"])
        assert (caught.value.exit_code, caught.value.fields) == (2, {"node": shell.name, "program": "ls"})
        assert "/nowhere" in caught.value.output
        assert locked.run(["sh", "-c", "exit 0; echo never"]) == ""
        assert len(locked.run(["seq", "200000"])) == len(shell.run(["seq", "200000"]))
        assert locked.run(["cat"], stdin=b"fed") == "fed"
        folder = locked.run(["printenv", "t"]).strip()
        assert Path(folder).is_dir()
    assert not Path(folder).exists()


def test_after_a_line_that_broke_no_late_answer_is_taken_for_another(shell, tmp_path):
    with shell.lock(str(tmp_path / "lock")) as locked:
        with lost_connection():
            locked.run(["sh", "-c", "sleep 1; echo late"], timeout_seconds=0.3)
        assert locked.run(["echo", "next"]) == "next\n"


def test_a_command_ends_before_the_lock_is_free(shell, tmp_path):
    with contextlib.suppress(ProgramError), shell.lock(str(tmp_path / "lock")) as locked:
        locked.run(["sh", "-c", f"sleep 1.5; touch '{tmp_path}/done'"], timeout_seconds=0.3)
    with shell.lock(str(tmp_path / "lock"), wait_seconds=20):
        assert (tmp_path / "done").exists()


def break_line(locked):
    """Kill what connects us to the shell that holds the lock; on this host that is the shell itself."""
    locked._holder._process.kill()


def test_the_next_command_after_a_line_that_broke_runs_under_the_lock_again(shell, tmp_path):
    lock, regained = str(tmp_path / "lock"), []
    with shell.lock(lock, wait_seconds=10, regained=lambda: regained.append(locked.run(["echo", "looks"]))) as locked:
        locked.run(["true"])
        break_line(locked)
        with lost_connection():
            locked.run(["true"])
        assert locked.run(["echo", "next"]) == "next\n"
        assert regained == ["looks\n"]
        with pytest.raises(ClusterError, match="another process holds"), shell.lock(lock):
            pass
    with shell.lock(lock, wait_seconds=10):
        pass


@pytest.mark.parametrize("what", ["run", "put", "run with input"])
def test_nothing_runs_on_the_new_line_if_somebody_has_objections(shell, tmp_path, what):
    def object_to_it():
        raise ClusterError("another run was at work")

    target = tmp_path / "target"
    do = {
        "run": lambda: locked.run(["touch", str(target)]),
        "put": lambda: locked.put(Path(__file__), str(target)),
        "run with input": lambda: locked.run(["tee", str(target)], stdin=b"x"),
    }[what]
    with shell.lock(str(tmp_path / "lock"), wait_seconds=10, regained=object_to_it) as locked:
        break_line(locked)
        with lost_connection():
            locked.run(["true"])
        for _ in range(2):
            with pytest.raises(ClusterError, match="another run was at work"):
                do()
    assert not target.exists()


def test_nothing_runs_while_somebody_else_has_got_the_lock(shell, tmp_path):
    lock, target = str(tmp_path / "lock"), tmp_path / "target"
    with shell.lock(lock, wait_seconds=0.3) as locked:
        break_line(locked)
        with lost_connection():
            locked.run(["true"])
        locked.wait_seconds = 0.3
        with shell.lock(lock, wait_seconds=10), pytest.raises(ClusterError, match="another process holds"):
            locked.run(["touch", str(target)])
        assert not target.exists()
        locked.run(["touch", str(target)])
        assert target.exists()


def test_the_lock_is_held_until_the_command_has_ended_even_without_the_shell_that_took_it(shell, tmp_path):
    lock = str(tmp_path / "lock")
    with contextlib.suppress(ProgramError), shell.lock(lock) as locked:
        locked.run(["sh", "-c", f"kill -9 $PPID; sleep 1.5; touch '{tmp_path}/done'"])
    with shell.lock(lock, wait_seconds=20):
        assert (tmp_path / "done").exists()


def test_after_ctrl_c_no_late_answer_is_taken_for_another(shell, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with shell.lock(str(tmp_path / "lock"), wait_seconds=10) as locked:
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(Attached, "read_line", interrupted)
            locked.run(["echo", "late"])
        assert locked.run(["echo", "next"]) == "next\n"


class Network:
    """Carries bytes to a port of this host, until it swallows them without telling either side."""

    def __init__(self, port):
        self.port, self.listener, self.dead = port, socket.create_server(("127.0.0.1", 0)), set()
        self.pairs = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.port))
                self.pairs.append((near, far))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other, len(self.pairs)), daemon=True).start()

    def _carry(self, one, other, number):
        with contextlib.suppress(OSError):
            while piece := one.recv(65536):
                if number not in self.dead:
                    other.sendall(piece)
            if number not in self.dead:
                other.shutdown(socket.SHUT_WR)

    def swallow(self):
        self.dead.update(range(1, len(self.pairs) + 1))

    def close(self):
        for each in (self.listener, *(end for pair in self.pairs for end in pair)):
            each.close()


def test_a_network_that_never_tells_the_node_that_the_line_broke_does_not_keep_the_lock(sshd, tmp_path):
    port, key, ssh = sshd
    wrapper = tmp_path / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {ssh} -o HostKeyAlias="[127.0.0.1]:{port}" "$@"\n')
    wrapper.chmod(0o700)
    with contextlib.closing(Network(port)) as network:
        through = SshNodeShell(
            "127.0.0.1",
            user=getpass.getuser(),
            port=network.listener.getsockname()[1],
            identity=key,
            ssh=str(wrapper),
            sudo=False,
        )
        lock = str(tmp_path / "lock")
        with through.lock(lock, wait_seconds=20) as locked:
            locked.run(["true"])
            network.swallow()
            with lost_connection():
                locked.run(["true"], timeout_seconds=0.5)
            with pytest.raises(ClusterError, match="another process holds"), through.lock(lock):
                pass  # the node still waits for the line that is gone
            assert locked.run(["echo", "next"]) == "next\n"
            with pytest.raises(ClusterError, match="another process holds"), through.lock(lock):
                pass  # it is held by the new one


def test_a_lock_goes_with_a_process_that_is_killed(shell, tmp_path):
    if isinstance(shell, SshNodeShell):
        make = f"SshNodeShell('127.0.0.1', user={shell._target.partition('@')[0]!r}, ssh={shell._ssh!r}, sudo=False)"
        options = f"shell._options = {shell._options!r}"
    else:
        make, options = "LocalNodeShell()", ""
    code = f"""
        from clusterguard.clusters.node_shell import LocalNodeShell, SshNodeShell
        import time
        shell = {make}
        {options}
        with shell.lock({str(tmp_path / "lock")!r}):
            print("held", flush=True)
            time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(ClusterError, match="another process holds"), shell.lock(str(tmp_path / "lock")):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with shell.lock(str(tmp_path / "lock"), wait_seconds=10):
        pass


def test_a_host_that_is_not_there_is_told_with_what_to_try():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if not shutil.which("ssh"):
        pytest.skip("NOT RUN: no ssh here")
    with pytest.raises(ProgramError) as caught:
        SshNodeShell("127.0.0.1", port=port).run(["true"])
    assert (caught.value.exit_code, caught.value.fields["program"]) == (255, "true")
    assert "refused" in caught.value.output
    assert "ssh 127.0.0.1 true must work without a question" in caught.value.hint


def test_what_a_person_would_type_is_one_line_of_shell(tmp_path):
    argv = ["mv", "-T", "/a b", "/c"]
    assert LocalNodeShell().describe(argv) == "mv -T '/a b' /c"
    assert DockerNodeShell("node").describe(argv) == "docker exec --interactive node mv -T '/a b' /c"
    line = SshNodeShell("cp", user="ops", port=2222).describe(argv)
    assert shlex.split(line) == ["ssh", "-p", "2222", "ops@cp", "sudo -n -- mv -T '/a b' /c"]
    source, target = tmp_path / "a b", tmp_path / "new" / "target"
    source.write_text("content")
    subprocess.run(LocalNodeShell().describe_put(source, str(target)), shell=True, check=True)  # noqa: S602 - as typed
    assert target.read_text() == "content"
    assert target.stat().st_mode & 0o777 == 0o600


def test_root_needs_no_sudo():
    assert "sudo" not in SshNodeShell("cp", user="root").describe(["id"])
    assert "sudo" not in SshNodeShell("cp", sudo=False).describe(["id"])


@pytest.mark.parametrize("host", ["", "-oProxyCommand=reboot"])
def test_an_option_is_no_host(host):
    with pytest.raises(ConfigError, match="is not a host"):
        SshNodeShell(host)


def test_a_word_names_a_node():
    assert isinstance(open_node_shell("local"), LocalNodeShell)
    assert open_node_shell("docker:cp-1").name == "cp-1"
    assert open_node_shell("ssh:ops@cp").describe(["id"]) == "ssh ops@cp 'sudo -n -- id'"
    for wrong in ("", "docker:", "ssh", "telnet:cp", "local:x"):
        with pytest.raises(ConfigError) as caught:
            open_node_shell(wrong)
        assert caught.value.code == "invalid-node-reference"
