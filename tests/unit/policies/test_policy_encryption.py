"""The encryption that a policy asks for: keys from files and variables, refused where others could read them."""

from __future__ import annotations

import errno
import os
import stat
import types
from pathlib import Path

import pyrage
import pytest

from clusterguard import secret_files
from clusterguard.errors import ConfigError
from clusterguard.policies.copies.encryption import encryption_of, read_secret
from clusterguard.policies.policy import Compression, Encryption, EtcdSource, Location, Policy, Secret, Source
from clusterguard.stores import MemoryStore
from clusterguard.stores.encryption import EncryptedStore

IDENTITY = pyrage.x25519.Identity.generate()
RECIPIENT = str(IDENTITY.to_public())
OTHER = str(pyrage.x25519.Identity.generate().to_public())
SECRET = str(IDENTITY)


def policy(encryption=None, level=3):
    return Policy(
        name="nightly",
        sources=(Source(name="main", etcd=EtcdSource(cluster="kind:main")),),
        locations=(Location(name="near", url="memory:"),),
        copies=1,
        encryption=encryption,
        compression="none" if level is None else Compression(level=level),
    )


@pytest.fixture
def file(tmp_path):
    def write(text, mode=0o600, name="file"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return str(path)

    return write


def identity_in(path):
    return policy(Encryption(recipients=(RECIPIENT,), identity_file=path))


class TestWhatComesOut:
    def test_without_encryption_there_is_compression_alone(self):
        assert encryption_of(policy(), {}).suffix == ".zst"
        assert encryption_of(policy(level=None), {}).suffix == ""

    def test_recipients_of_the_policy_and_of_its_file(self, file):
        path = file(f"# the on-call team\n\n{OTHER}\n", mode=0o644)
        encryption = encryption_of(policy(Encryption(recipients=(RECIPIENT,), recipients_file=path)), {})
        assert encryption.recipients == (RECIPIENT, OTHER)
        assert not encryption.can_decrypt

    def test_an_identity_opens_what_its_recipient_encrypts(self, file):
        text = f"# created: 2030-01-01T00:00:00Z\n# public key: {RECIPIENT}\n{SECRET}\n"
        for secret, environ in [({"identity_file": file(text)}, {}), ({"identity_env": "KEY"}, {"KEY": SECRET})]:
            encryption = encryption_of(policy(Encryption(recipients=(RECIPIENT,), **secret)), environ)
            store = EncryptedStore(MemoryStore(), encryption)
            with store.put("a.db") as writer:
                writer.write(b"bytes")
            with store.get("a.db") as reader:
                assert reader.read() == b"bytes"

    @pytest.mark.parametrize("text", ["hunter2 hunter3", "hunter2 hunter3\n", "\n  hunter2 hunter3\r\n"])
    def test_a_passphrase_is_what_lies_between_the_space_around_it(self, file, text):
        encryption = Encryption(passphrase_file=file(text))
        assert encryption_of(policy(encryption), {}).passphrase == "hunter2 hunter3"
        encryption = Encryption(passphrase_env="PASS")
        assert encryption_of(policy(encryption), {"PASS": text}).passphrase == "hunter2 hunter3"

    def test_a_path_may_begin_at_home(self, file, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        file(SECRET, name="key.txt")
        assert encryption_of(identity_in("~/key.txt"), {}).can_decrypt


class TestModes:
    @pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o601])
    def test_a_file_of_ours_that_others_may_touch_is_refused(self, file, mode):
        path = file(SECRET, mode=mode)
        with pytest.raises(ConfigError, match=f"mode {mode:04o}") as raised:
            encryption_of(identity_in(path), {})
        assert f"chmod 600 {path}" in raised.value.hint
        assert "defaultMode" in raised.value.hint

    @pytest.mark.parametrize("mode", [0o600, 0o400])
    def test_a_file_that_only_we_may_read_will_do(self, file, mode):
        assert encryption_of(identity_in(file(SECRET, mode=mode)), {}).can_decrypt

    @pytest.mark.parametrize(("mode", "allowed"), [(0o440, True), (0o640, True), (0o444, False), (0o460, False)])
    def test_a_file_of_somebody_else_may_be_read_by_our_group(self, mode, allowed):
        """So are the secrets of Kubernetes in a pod that does not run as root: 0440, of root."""
        status = types.SimpleNamespace(st_mode=stat.S_IFREG | mode, st_uid=os.geteuid() + 1)
        if allowed:
            secret_files._require_safe(Path("/keys/identity"), status, what="the identity", private=True)
        else:
            with pytest.raises(ConfigError):
                secret_files._require_safe(Path("/keys/identity"), status, what="the identity", private=True)

    def test_the_passphrase_is_guarded_likewise(self, file):
        with pytest.raises(ConfigError) as caught:
            encryption_of(policy(Encryption(passphrase_file=file("hunter2", mode=0o644))), {})
        assert (caught.value.code, caught.value.fields) == (
            "secret-file-mode",
            {"what": "the passphrase", "mode": 0o644},
        )

    def test_a_mode_counts_behind_a_link_too(self, file, tmp_path):
        """Kubernetes gives secrets as links, whose own mode says nothing."""
        link = tmp_path / "link"
        link.symlink_to(file(SECRET, mode=0o644))
        with pytest.raises(ConfigError, match="mode 0644"):
            encryption_of(identity_in(str(link)), {})

    def test_recipients_that_everybody_may_write_are_refused(self, file):
        """Whoever adds a key of their own reads every backup from then on."""
        path = file(RECIPIENT, mode=0o646)
        with pytest.raises(ConfigError, match="add keys of their own"):
            encryption_of(policy(Encryption(recipients_file=path)), {})


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "seen"),
        [
            ("", "holds no recipient"),
            ("# nobody yet\n\n", "holds no recipient"),
            (SECRET, "private key found where"),
            ("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n", "private key found where"),
            ("ecdsa-sha2-nistp256 AAAA me@host", "unknown type"),
            ("age1nonsense", "invalid recipient age1nonsense…: "),
            (b"\xff\xfe", "is not text"),
            ("x" * 70_000, "larger than any"),
        ],
        ids=["empty", "comments", "identity", "ssh key", "unknown type", "nonsense", "no text", "huge"],
    )
    def test_a_file_that_holds_no_recipients(self, file, text, seen):
        path = file(text)
        with pytest.raises(ConfigError, match=seen) as raised:
            encryption_of(policy(Encryption(recipients_file=path)), {})
        assert path in raised.value.message
        assert raised.value.hint
        assert SECRET[20:] not in told(raised.value)

    @pytest.mark.parametrize(
        "text",
        [RECIPIENT, "AGE-SECRET-KEY-1NONSENSE", SECRET[:-1], SECRET + "\n" + SECRET[:-2]],
        ids=["a recipient", "nonsense", "cut short", "the second cut short"],
    )
    def test_a_file_that_holds_no_identity(self, file, text):
        path = file(text)
        with pytest.raises(ConfigError) as raised:
            encryption_of(identity_in(path), {})
        assert (raised.value.code, raised.value.fields) == (
            "invalid-identity",
            {"place": f"the identity in the file {path}"},
        )
        assert f"the file {path}" in raised.value.message
        assert SECRET[20:50] not in told(raised.value)
        assert "NONSENSE" not in told(raised.value)

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_an_empty_secret(self, file, text):
        with pytest.raises(ConfigError, match="is empty"):
            encryption_of(identity_in(file(text)), {})
        with pytest.raises(ConfigError) as raised:
            encryption_of(policy(Encryption(passphrase_env="PASS")), {"PASS": text})
        assert (raised.value.code, raised.value.fields) == ("variable-not-set", {"variable": "PASS"})
        assert "set PASS" in raised.value.hint

    def test_an_identity_of_comments_alone(self, file):
        with pytest.raises(ConfigError, match="no key found"):
            encryption_of(identity_in(file("# nothing\n")), {})

    def test_an_identity_that_is_itself_encrypted(self, file):
        path = file(pyrage.encrypt(SECRET.encode(), [IDENTITY.to_public()]))
        with pytest.raises(ConfigError, match="is not text") as raised:
            encryption_of(identity_in(path), {})
        assert "decrypted first" in raised.value.hint

    def test_a_file_that_is_not_there_or_is_none(self, tmp_path):
        for path, seen in [(tmp_path / "none", errno.ENOENT), (tmp_path, errno.EISDIR)]:
            with pytest.raises(ConfigError) as caught:
                encryption_of(identity_in(str(path)), {})
            assert (caught.value.code, caught.value.fields["what"], caught.value.fields["errno"]) == (
                "file-unreadable",
                "the identity",
                seen,
            )
            with pytest.raises(ConfigError) as caught:
                encryption_of(policy(Encryption(recipients_file=str(path))), {})
            assert (caught.value.code, caught.value.fields["what"], caught.value.fields["errno"]) == (
                "file-unreadable",
                "the recipients",
                seen,
            )


def told(error):
    """Return everything that a traceback of an error would show of it."""
    seen = ""
    while error is not None:
        seen += f"{error!r} {getattr(error, 'hint', '')} "
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return seen


def test_no_secret_is_in_the_repr_of_what_comes_out(file):
    encryption = encryption_of(identity_in(file(SECRET)), {})
    assert SECRET not in repr(encryption)
    assert SECRET not in repr(EncryptedStore(MemoryStore(), encryption))
    encryption = encryption_of(policy(Encryption(passphrase_env="PASS")), {"PASS": "hunter2"})
    assert "hunter2" not in repr(encryption)


def test_a_secret_for_other_uses_is_read_by_the_same_rules(file):
    assert read_secret(Secret(file=file("https://example.com/x\n")), {}, what="the address") == "https://example.com/x"
    with pytest.raises(ConfigError, match="the address"):
        read_secret(Secret(file=file("x", mode=0o644)), {}, what="the address")
