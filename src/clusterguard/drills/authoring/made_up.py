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

from clusterguard.drills.authoring.looking import is_built_in
from clusterguard.evidence.secrecy import UNREADABLE, SecretValues

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

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

# Of a name with its words apart, as `db_password`.
_WORDS: Final = (
    "passw|passphrase|passcode|pwd|secret|token|credential|bearer|dsn|apikey|authkey"
    "|(?:api|access|private|encryption|signing|master|account|shared|auth|ssh|deploy|license|tls|storage|hmac|session"
    r"|client|webhook)[._-]?key|(?:^|[._/-])auth$|(?:connection|conn)[._-]?str|webhook[._-]?url"
    # `pgpass`, and neither compass, bypass, trespass nor what passes through
    r"|(?<!by)(?<!com|sur)(?<!tres|over)pass(?![a-z]|[._-]?through)|(?:(?<![a-z])|root|bind|user|admin)pw(?![a-z])"
)
# Such a name says where the credential is, or what is true of it.
_OF_NO_VALUE: Final = (
    "file|filename|path|dir|ref|name|policy|length|size|endpoint|audience|issuer|expiry|ttl|timeout|seconds|enabled"
    "|header|type|kind|namespace|algorithm|encoding|format|mode|version|replicas|port"
)
_CREDENTIAL: Final = re.compile(_WORDS)
_NO_VALUE: Final = re.compile(rf"(?:^|[^a-z])(?:{_OF_NO_VALUE})s?$")
_NEW_WORD: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LONGEST_NAME: Final = 200
# What is assigned to is looked at by itself: the expressions here never go back over what they have read.
_ASSIGNED: Final = re.compile(
    r"(?<![\w.-])(?P<name>[\w.-]++)[\"']?\]?[ \t]*+[:=]{1,2}>?[ \t]*+|<(?P<tag>[\w.-]++)>",
)
_QUOTED: Final = re.compile(r"(?:\"(?:[^\"\\\n]|\\.)*+\"|'[^'\n]*+')(?=[\s,;)\]}>]|\Z)")
_IN_A_TAG: Final = re.compile(r"[^<]*+")
# How a value begins that may go on below, and how such a line ends: blocks, lists, open quotes, continued lines.
_OPENS: Final = re.compile(r"[\r\n\"'`\[{(|>!&#\\]|\$\(|<<")
_CONTINUED: Final = ("\\", "+", "[", "{", "(")
_MORE: Final = re.compile(r"\r*+\n(?:[ \t\r]*+\n)*+(?P<indent>[ \t]*+)\S")
_BEFORE_NAME: Final = re.compile(r"[ \t]*(?:- +)*")
_KEY_BLOCK: Final = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=kind)-----|\Z)", re.DOTALL
)
_LOOKS_LIKE_ONE: Final = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<=://)[^/\s:@]*:[^/\s]+(?=@)",  # user and password in a URL, whose last `@` ends them
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
# Nothing but a reference to what is elsewhere, without a value for when it is not there; or no more than yes or no.
_REFERS: Final = re.compile(
    r"[\"']?(?:\$[({][\w.]++[)}]|\$[A-Za-z_]\w*+|\{\{[^{}\"'`\n]*+\}\}|%\([\w.-]++\)s?|<[A-Za-z_-]++>"
    r"|(?:true|false|null|none|~)?)[\"']?[,;]*+\s*+",
    re.IGNORECASE,
)
# What something is called, or chosen by: such a name makes no credential of what is under it.
_NAMES: Final = frozenset(
    {
        *("apiVersion", "kind", "name", "namespace", "image", "labels", "matchLabels", "selector", "matchExpressions"),
        *("secretKeyRef", "configMapKeyRef", "secretRef", "configMapRef", "roleRef", "type", "fieldPath"),
    }
)
_LABELS: Final = frozenset({"labels", "matchLabels", "selector"})
# An object with no other keys says which key of which Secret, and where it is mounted.
_OF_REFERENCES: Final = frozenset(
    {*("apiVersion", "apiGroup", "group", "kind", "name", "namespace", "key", "property", "optional", "type")}
    | {*("items", "path", "mode", "defaultMode")}
)
_FREE_KEYS: Final = frozenset({"data", "binaryData", "annotations", *_LABELS})
_MADE_UP_NUMBER: Final = 12345


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

    def __init__(self, everything: Sequence[Mapping[str, Any]]) -> None:
        self._known = SecretValues()
        self._known.learn(everything)
        self._names = {str(each["metadata"].get(key)) for each in everything for key in ("name", "namespace")}

    def without_credentials(self, item: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Return an object in which credentials are made up, and the paths of what was made up."""
        whole = "\0".join(_texts(item))
        has_known = self._known.hidden_text(whole) != whole
        walk = _Walk(self.hidden if has_known else str, custom=not is_built_in(item["apiVersion"].rpartition("/")[0]))
        made: dict[str, Any] = walk.through(dict(item))
        if item["kind"] == "ConfigMap" and item["apiVersion"] == "v1" and item.get("binaryData"):
            made["binaryData"] = dict.fromkeys(made["binaryData"], _BINARY)  # nobody sees what is in there
            walk.places += [f"binaryData.{key}" for key in made["binaryData"]]
        return made, tuple(dict.fromkeys(walk.places))

    def hidden(self, text: str) -> str:
        """Return a text with something made up for each value of a Secret in it; what objects are called stays."""
        return text if text in self._names else self._known.hidden_text(text).replace(UNREADABLE, _MADE_UP)


class _Walk:
    """Goes through one object. What has no name of its own below a credential's has that one: ``{token: [x]}``.

    Args:
        hidden: Takes values of Secrets out of a text.
        custom: Whether the object is a custom resource, whose keys may be anything.
    """

    def __init__(self, hidden: Callable[[str], str], *, custom: bool) -> None:
        self._hidden = hidden
        self._custom = custom
        self.places: list[str] = []

    def through(self, data: Any, path: str = "", name: str = "") -> Any:  # noqa: ANN401 - JSON
        """Return JSON without credentials.

        Args:
            data: What is there.
            path: Where it is.
            name: That of the credential that it is, or an empty text.
        """
        match data:
            case dict():
                return self._object(data, path, "" if _is_reference(data) else name)
            case list():
                return [
                    self.through(each, f"{path}[{index}]", _flag_before(data, index) or name)
                    for index, each in enumerate(data)
                ]
            case str():
                return self._leaf(data, path, name)
            case int() | float() if not isinstance(data, bool) and (name or self._hidden(str(data)) != str(data)):
                self.places.append(path)
                return _MADE_UP_NUMBER
        return data

    def _object(self, data: dict[str, Any], path: str, name: str) -> dict[str, Any]:
        within = path.rpartition(".")[2]
        free = within in _FREE_KEYS or (self._custom and path not in {"", "metadata"})
        made: dict[str, Any] = {}
        for key, value in data.items():
            shown = self._hidden(key) if free else key
            where = f"{path}.{shown}".lstrip(".")
            if shown != key:
                shown += f"-{len(made)}" * (shown in data or shown in made)
                self.places.append(where)
            if where in {"apiVersion", "kind"}:
                made[shown] = value
            elif within in _LABELS and isinstance(value, str):
                made[shown] = self._leaf(value, where, "")
            else:
                made[shown] = self.through(value, where, _name_of(data, key, name))
        return made

    def _leaf(self, text: str, path: str, name: str) -> str:
        made = without_credentials_in(self._hidden(text))
        if name and not _REFERS.fullmatch(text):
            made = f"{_MADE_UP}-{name.strip('-').rpartition('/')[2]}"
        if made != text:
            self.places.append(path)
        return made


def _texts(data: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    match data:
        case dict():
            yield from data
            yield from _texts(list(data.values()))
        case list():
            for each in data:
                yield from _texts(each)
        case _:
            yield str(data)


def _name_of(data: dict[str, Any], key: str, above: str) -> str:
    """Return the name of the credential that is under a key, or an empty text."""
    name = data["name"] if key == "value" and isinstance(data.get("name"), str) else key
    if key in _NAMES or _NO_VALUE.search(_in_words(name)):
        return ""
    if not _is_credential(name):
        return above
    # How to sign in is mostly settings: there each key speaks for itself.
    return "" if isinstance(data[key], dict) and name.lower().endswith("auth") else name


def _is_reference(data: dict[str, Any]) -> bool:
    return all(key in _OF_REFERENCES or key.endswith(("Name", "Ref")) for key in data)


def without_credentials_in(text: str) -> str:
    """Return a text, such as a file, without what looks like a credential in it, or is assigned to the name of one.

    Where such a value goes on in further lines nothing of the text is left: where it ends, a parser of whatever it is
    would have to say.
    """
    for pattern in _LOOKS_LIKE_ONE:
        text = pattern.sub(_MADE_UP, text)
    text = _KEY_BLOCK.sub(lambda key: f"-----BEGIN {key['kind']}-----\n-----END {key['kind']}-----", text)
    parts: list[str] = []
    end = 0
    for found in _ASSIGNED.finditer(text):
        if found.start() < end or not _is_credential(found["name"] or found["tag"]):
            continue
        value = _value_at(text, found)
        if value is None:
            return f"{_MADE_UP}\n"
        start, stop = value
        if _REFERS.fullmatch(text, start, stop):
            continue
        quote = text[start] if _QUOTED.fullmatch(text, start, stop) else ""
        parts += [text[end:start], f"{quote}{_MADE_UP}{quote}"]
        end = stop
    return "".join([*parts, text[end:]])


def _value_at(text: str, assigned: re.Match[str]) -> tuple[int, int] | None:
    """Return where the value begins and ends that is assigned, or None where it may go on in further lines."""
    start = assigned.end()
    if assigned["tag"]:
        stop = _end_of(_IN_A_TAG, text, start)
        return (start, stop) if stop == len(text) or text.startswith("</", stop) else None
    line_end = text.find("\n", start) % (len(text) + 1)  # or the end of the text
    while text.endswith("\r", start, line_end):
        line_end -= 1
    more = _MORE.match(text, line_end)
    if quoted := _QUOTED.match(text, start):
        return None if more and text.endswith(_CONTINUED[:2], start, line_end) else quoted.span()
    line = text[start:line_end].strip()
    if more is None or (line and _REFERS.fullmatch(line)):
        return start, line_end
    begin = text.rfind("\n", 0, start) + 1
    deeper = len(more["indent"]) > _end_of(_BEFORE_NAME, text, begin) - begin
    return None if deeper or line.endswith(_CONTINUED) or _OPENS.match(text, start) else (start, line_end)


def _end_of(pattern: re.Pattern[str], text: str, start: int) -> int:
    """Return where something ends that begins there, and may be empty."""
    found = pattern.match(text, start)
    return found.end() if found else start


def _in_words(name: str) -> str:
    return _NEW_WORD.sub("_", name[:_LONGEST_NAME]).lower()


def _is_credential(name: str) -> bool:
    """Return whether something of this name is a credential."""
    if len(name) > _LONGEST_NAME:
        return False
    words = _in_words(name)
    return _CREDENTIAL.search(words) is not None and _NO_VALUE.search(words) is None


def _flag_before(data: list[Any], index: int) -> str:
    """Return the flag whose value an argument is, or an empty text."""
    before = data[index - 1] if index else ""
    return before if isinstance(before, str) and before.startswith("-") and "=" not in before else ""
