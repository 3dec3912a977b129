"""Secrets that somebody wrote into a policy: refused, and never repeated."""

# ruff: noqa: E501 - a table of cases, each on a line of its own

from __future__ import annotations

import traceback

from clusterguard.policies.files.redaction import without_secrets

KEY = "AGE-SECRET-KEY-1QYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQY"
WRITTEN = {
    "a private key for a public one": ("recipientsFile: readers.txt", f"recipients: [{KEY}]", KEY[15:]),
    "a private key for a file": ("recipientsFile: readers.txt", f"recipientsFile: r\n    identityFile: {KEY}", KEY[15:]),
    "a private key for a variable": ("recipientsFile: readers.txt", f"recipientsFile: r\n    identityEnv: {KEY}", KEY[15:]),
    "a private key in place": ("recipientsFile: readers.txt", f"recipientsFile: r\n    identity: {KEY}", KEY[15:]),
    "a private key in a remark": ("  retention:", f"  description: {KEY}\n  retention:", KEY[15:]),
    "a passphrase in place": ("recipientsFile: readers.txt", "passphrase: correct horse", "horse"),
    "a passphrase for a variable": ("recipientsFile: readers.txt", "passphraseEnv: correct horse", "horse"),
    "a passphrase of digits": ("recipientsFile: readers.txt", "passphraseEnv: 8675309", "8675309"),
    "a passphrase as a list": ("recipientsFile: readers.txt", "passphraseEnv: [correct, horse]", "horse"),
    "a password in quotes": ("recipientsFile: readers.txt", '"password": "correct horse"', "horse"),
    "etcd's password in place": ("keyFile: pki/client.key", "keyFile: pki/client.key, password: hooksecret", "hooksecret"),
    "etcd's password for a variable": ("keyFile: pki/client.key", "keyFile: pki/client.key, userEnv: U, passwordEnv: hook-secret", "hook-secret"),
    "an address in place": ("urlEnv: OPS_URL", "url: 'slack://T0/hooksecret'", "hooksecret"),
    "an address for a variable": ("urlEnv: OPS_URL", "urlEnv: slack://T0/hooksecret", "hooksecret"),
    "an address for a file": ("urlFile: heartbeat.url", "urlFile: https://hc.example/hooksecret", "hooksecret"),
    "a heartbeat in place": ("urlFile: heartbeat.url", "url: https://hc.example/hooksecret", "hooksecret"),
    "a password in a store": ("s3://backups/all?region=eu-west-1", "s3://me:hooksecret@backups/all", "hooksecret"),
    "a password in a URL": ("  retention:", "  metrics: {pushgateway: 'http://me:hooksecret@c'}\n  retention:", "hooksecret"),
    "YAML broken beside it": ("recipientsFile: readers.txt", f"identity: [{KEY}", KEY[15:]),
}  # fmt: skip


def test_a_secret_in_a_policy_is_refused_and_not_repeated(minimal, refused):
    repeated = []
    for case, (old, new, secret) in WRITTEN.items():
        assert old in minimal, case
        assert secret in new, case
        error = refused(minimal.replace(old, new, 1))
        if secret in "".join(traceback.format_exception(error)) + repr(error) + str(error.hint):
            repeated.append(case)

    assert not repeated


def test_a_private_key_among_the_recipients_is_named_as_what_it_is(minimal, refused):
    error = refused(minimal.replace("recipientsFile: readers.txt", f"recipients: [{KEY}]"))

    assert "this is a private key: whoever reads the policy could read the backups" in error.message


def test_a_secret_from_the_environment_is_not_repeated(minimal, refused):
    text = minimal.replace("recipientsFile: readers.txt", 'recipients: ["${env.KEY}"]')

    assert KEY[15:] not in str(refused(text, KEY=KEY))


def test_a_policy_does_not_hold_what_its_secrets_are(load, minimal):
    policy = load(minimal, OPS_URL="slack://hooksecret")

    assert "hooksecret" not in repr(policy)
    assert str(policy.notifications[0].url) == "the variable OPS_URL"


NO_SECRETS = [
    "   14 |   - {name: far, url: s3://backups/all}",
    "   13 |   - {name: near, url: ./backups}",
    "   19 |   - {name: ops, urlEnv: OPS_URL, on: [failure]}",
    "   17 |     passphraseEnv: ${env.NAME}",
    "   17 |     passphraseEnv: NAME # where it is",
    "spec.notifications[0].urlEnv: the name of a variable is expected here, not what is in it",
]


def test_what_is_no_secret_stays_readable():
    assert [without_secrets(line) for line in NO_SECRETS] == NO_SECRETS


def test_a_caret_stays_under_its_column():
    line = "   19 |   - {name: ops, url: slack://T0/secret, on: [failure]}"

    assert len(without_secrets(line)) == len(line)
    assert without_secrets(line).startswith("   19 |   - {name: ops, url: •")
