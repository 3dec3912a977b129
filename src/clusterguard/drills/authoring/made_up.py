"""What no file of a drill may hold: the values of Secrets, and what elsewhere looks like a credential. Pure.

A Secret keeps its keys, and gets values of the same kind that are made up. In everything else a value is made up where
its name says that it is a credential, where it looks like one, and where a Secret of the namespace has the same. Names
are patterns, so a credential under an innocent name is not found: whoever commits the files reads them first.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Any, Final

from clusterguard.evidence.secrecy import UNREADABLE, SecretValues

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["MadeUp", "made_up_secret", "without_credentials_in"]

_MADE_UP: Final = "made-up"
_BINARY: Final = base64.b64encode(b"\x00made-up\xff").decode()
_PEM: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----")
_PEM_KINDS: Final = frozenset({"CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PUBLIC KEY"})
# Says what the Secret is for, and nothing of what is in it.
_SECRET_ANNOTATIONS: Final = ("kubernetes.io/service-account.name", "meta.helm.sh/", "helm.sh/")
_DOCKER: Final = {
    ".dockerconfigjson": {"auths": {"registry.example.com": {"auth": base64.b64encode(b"made-up:made-up").decode()}}},
    ".dockercfg": {"registry.example.com": {"auth": base64.b64encode(b"made-up:made-up").decode()}},
}

_WORDS_LIKE: Final = {"": "", "number": "12345", "true": "true", "false": "true"}

_WORDS: Final = (
    "passw|passphrase|passcode|pwd|secret|token|credential|bearer|dsn|apikey|authkey"
    "|(?:api|access|private|encryption|signing|master|account|shared|auth|ssh|deploy|license|tls|storage|hmac|session"
    r"|client|webhook)[._-]?key|(?:^|[._/-])auth$|(?:connection|conn)[._-]?str|webhook[._-]?url"
)
# Such a name says where the credential is, or what is true of it.
_OF_NO_VALUE: Final = (
    "file|filename|path|dir|ref|name|policy|length|endpoint|audience|issuer|expiry|ttl|timeout|seconds|enabled|header"
    "|type|namespace|algorithm"
)
_CREDENTIAL: Final = re.compile(_WORDS, re.IGNORECASE)
_NO_VALUE: Final = re.compile(rf"(?:{_OF_NO_VALUE})s?$", re.IGNORECASE)
_LONGEST_NAME: Final = 200
# What is assigned to is looked at by itself: the expressions here never go back over what they have read.
_ASSIGNED: Final = re.compile(
    r"(?<![\w.-])(?P<name>[\w.-]++)[\"']?[ \t]*+[:=]{1,2}>?[ \t]*+|<(?P<tag>[\w.-]++)>",
)
_VALUE: Final = re.compile(r"\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+'|\S[^\n]*+")
_IN_A_TAG: Final = re.compile(r"[^<]++")
_KEY_BLOCK: Final = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=kind)-----|\Z)", re.DOTALL
)
_LOOKS_LIKE_ONE: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)",  # user and password in a URL
        r"(?<![\w-])eyJ[\w-]{10,}+\.[\w-]{10,}+\.[\w-]*",  # a JSON web token
        r"(?i:(?<=bearer )|(?<=basic ))[\w+/.=-]{16,}",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        r"\b(?:gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[a-z]-[\w-]{10,}|hvs\.[\w-]{16,})",
        r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant)?[\w-]{16,}",
        r"\bAIza[\w-]{30,}",
        r"AGE-SECRET-KEY-1\w+",
        r"\$(?:1|2[abxy]|5|6|y|apr1|argon2\w{1,2})\$[\w./$=,+-]{8,}",  # the hash of a password
    )
)
# Nothing but a reference to what is elsewhere, or a word that says no more than yes or no.
_REFERS: Final = re.compile(
    r"[\"']?(?:\$[({][^(){}\n]*+[)}]|\$[A-Za-z_]\w*+|\{\{[^{}\n]*+\}\}|%\([^()\n]*+\)s?|<[A-Za-z_-]++>"
    r"|(?:true|false|null|none|~)?)[\"',;]*+\s*+",
    re.IGNORECASE,
)
_BLOCK: Final = re.compile(r"[|>][+-]?\d?\s*")
# What something is called, or chosen by: it is the same wherever it is named, and no place for a secret.
_NAMES: Final = frozenset(
    {
        *("apiVersion", "kind", "name", "namespace", "image", "labels", "matchLabels", "selector", "matchExpressions"),
        *("secretKeyRef", "configMapKeyRef", "secretRef", "configMapRef", "roleRef", "type", "fieldPath"),
    }
)


def made_up_secret(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Secret as it may be shown to anybody: with every key, and no value, not even of an annotation."""
    metadata = dict(item["metadata"])
    annotations = metadata.pop("annotations", None) or {}
    if kept := {key: value for key, value in annotations.items() if key.startswith(_SECRET_ANNOTATIONS)}:
        metadata["annotations"] = kept
    made: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    made |= {key: item[key] for key in ("type", "immutable") if key in item}
    for key, encoded in (item.get("data") or {}).items():
        value = _decoded(encoded)
        if value is None:
            made.setdefault("data", {})[key] = _BINARY
        else:
            made.setdefault("stringData", {})[key] = _text_like(key, value)
    return made


def _decoded(encoded: str) -> str | None:
    """Return the text that was encoded, or None where it was none."""
    try:
        text = base64.b64decode(encoded or "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return None if "\0" in text else text


def _text_like(key: str, value: str) -> str:
    """Return a text of the same kind as a value; of the value itself nothing is in it but what kind it is."""
    stripped = value.strip()
    if key in _DOCKER:
        return json.dumps(_DOCKER[key])
    if pem := _PEM.search(value):
        kind = pem[1] if pem[1] in _PEM_KINDS else "CERTIFICATE"
        return f"-----BEGIN {kind}-----\nbWFkZS11cA==\n-----END {kind}-----\n"
    if stripped.startswith(("{", "[")):
        return json.dumps({_MADE_UP: key})
    if "://" in stripped:
        return f"https://{_MADE_UP}.example.com/"
    return _WORDS_LIKE.get(_shape(stripped), f"{_MADE_UP}-{key}")


def _shape(text: str) -> str:
    if text.isdecimal():
        return "number"
    return text.lower() if text.lower() in {"", "true", "false"} else "text"


class MadeUp:
    """Takes credentials out of objects that are no Secrets.

    Args:
        everything: All objects as the cluster has them, Secrets included: what repeats a value of one is found by it.
    """

    def __init__(self, everything: Iterable[Mapping[str, Any]]) -> None:
        self._known = SecretValues()
        self._known.learn(everything)

    def without_credentials(self, item: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return an object in which credentials are made up, and the paths of what was made up."""
        whole = json.dumps(item, ensure_ascii=False)
        walk = _Walk(self._known if self._known.hidden_text(whole) != whole else None)
        made: dict[str, Any] = walk.through(dict(item))
        if item["kind"] == "ConfigMap" and item["apiVersion"] == "v1" and item.get("binaryData"):
            made["binaryData"] = dict.fromkeys(item["binaryData"], _BINARY)  # nobody sees what is in there
            walk.places += [f"binaryData.{key}" for key in item["binaryData"]]
        return made, tuple(walk.places)


class _Walk:
    """Goes through one object.

    Args:
        known: Values of Secrets, where one of them is in the object.
    """

    def __init__(self, known: SecretValues | None) -> None:
        self._known = known
        self.places: list[str] = []

    def through(self, data: Any, path: str = "", name: str = "") -> Any:  # noqa: ANN401 - JSON
        match data:
            case dict():
                return {key: self._entry(data, key, path) for key in data}
            case list():
                return [
                    self.through(each, f"{path}[{index}]", _flag_before(data, index) or name)
                    for index, each in enumerate(data)
                ]
            case str():
                return self._leaf(data, path, name)
        return data

    def _entry(self, data: dict[str, Any], key: str, path: str) -> Any:  # noqa: ANN401 - JSON
        if key in _NAMES or key.endswith("Name"):
            return data[key]
        called = data["name"] if key == "value" and isinstance(data.get("name"), str) else key
        return self.through(data[key], f"{path}.{key}".lstrip("."), called)

    def _leaf(self, text: str, path: str, name: str) -> str:
        made = without_credentials_in(text)
        if self._known:
            made = self._known.hidden_text(made).replace(UNREADABLE, _MADE_UP)
        if _is_credential(name) and "\n" not in text.strip() and not _REFERS.fullmatch(text):
            made = f"{_MADE_UP}-{name.strip('-').rpartition('/')[2]}"
        if made != text:
            self.places.append(path)
        return made


def without_credentials_in(text: str) -> str:
    """Return a text, such as a file, without what looks like a credential in it, or is assigned to the name of one."""
    for pattern in _LOOKS_LIKE_ONE:
        text = pattern.sub(_MADE_UP, text)
    text = _KEY_BLOCK.sub(lambda key: f"-----BEGIN {key['kind']}-----\n-----END {key['kind']}-----", text)
    parts: list[str] = []
    end = 0
    for found in _ASSIGNED.finditer(text):
        if found.start() < end or not _is_credential(found["name"] or found["tag"]):
            continue
        value = (_IN_A_TAG if found["tag"] else _VALUE).match(text, found.end())
        if value is None or _REFERS.fullmatch(value.group()):
            continue
        if _BLOCK.fullmatch(value.group()):
            return f"{_MADE_UP}\n"  # of several lines: where it ends is for a parser of whatever it is to say
        quote = value.group()[0] if value.group()[0] in "\"'" else ""
        parts += [text[end : value.start()], f"{quote}{_MADE_UP}{quote}"]
        end = value.end()
    return "".join([*parts, text[end:]])


def _is_credential(name: str) -> bool:
    """Return whether something of this name is a credential."""
    return len(name) <= _LONGEST_NAME and _CREDENTIAL.search(name) is not None and _NO_VALUE.search(name) is None


def _flag_before(data: list[Any], index: int) -> str:
    """Return the flag whose value an argument is, or an empty text."""
    before = data[index - 1] if index else ""
    return before if isinstance(before, str) and before.startswith("-") and "=" not in before else ""
