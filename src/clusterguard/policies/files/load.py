"""From a policy file to a policy that can run, or to every problem in it with its place.

A policy that loads needs nothing but its own file: whether keys, drills and kubeconfigs are there is for the machine
that runs it. Problems are reported without the secrets that may have been written where only their location belongs.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from clusterguard.documents.explain import Grammar, explain
from clusterguard.documents.interpolation import substitute
from clusterguard.documents.reading import only_document, walk
from clusterguard.documents.values import did_you_mean
from clusterguard.documents.yamlfile import Problem, dotted, raise_problems, read_source
from clusterguard.errors import InvalidDocumentError, InvalidPolicyError
from clusterguard.policies.files.overlaps import StorageRoot, storage_root
from clusterguard.policies.files.redaction import PRIVATE_KEY, SECRET_KEYS, secret_in_place, without_secrets
from clusterguard.policies.policy import Policy, PolicyFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from clusterguard.documents.yamlfile import DataPath, SourceText, YamlDocument
    from clusterguard.policies.policy import PolicySpec

__all__ = ["load_policy", "parse_policy"]

_HINT: Final = "docs/reference/policy-files.md has every key; `clusterguard policy schema` is for editors"
_LITERAL_KEYS: Final = frozenset({"on"})  # a boolean in YAML 1.1, and a key of notifications
_GRAMMAR: Final = Grammar(root=PolicyFile, union="`none` or {level: 3}", unknown_key=secret_in_place)


def load_policy(path: Path, *, environ: Mapping[str, str]) -> Policy:
    """Load a policy file; paths in it are relative to it, and come out absolute.

    - ``environ``: what ``${env.NAME}`` may refer to.

    Raises:
        InvalidPolicyError: Something is wrong in the file; all of it is in the message, with its places.
        ConfigError: The extra ``policy`` is not installed.
    """
    path = Path(path)
    problem: InvalidPolicyError
    try:
        return parse_policy(read_source(path), directory=path.absolute().parent, environ=environ)
    except InvalidDocumentError as error:
        problem = InvalidPolicyError(without_secrets(error.message), fields=error.fields, hint=error.hint)
    # Raised here and not there: what the reader chained could hold what the message leaves out.
    raise problem


def parse_policy(source: SourceText, *, directory: Path, environ: Mapping[str, str]) -> Policy:
    """Make a policy of a text; relative paths in it begin in ``directory``, which is absolute.

    Raises:
        InvalidDocumentError: As `load_policy`, but the message has the lines as they are written.
    """
    document = only_document(source, noun="policy", hint=_HINT, literal_keys=_LITERAL_KEYS)
    return _Loading(document, directory, environ).policy()


class _Loading:
    """Loads one document; collects what is wrong instead of stopping at it."""

    def __init__(self, document: YamlDocument, directory: Path, environ: Mapping[str, str]) -> None:
        self.document = document
        self.directory = directory
        self.environ = environ
        self.problems: list[Problem] = []
        self.unresolved: set[DataPath] = set()  # reported where they are; not again for what they look like

    def policy(self) -> Policy:
        self._look_at_values()
        data = self._interpolated(self.document.data, ())
        policy = None
        try:
            file = PolicyFile.model_validate_json(
                json.dumps(data), context={"directory": self.directory}, by_alias=True, by_name=False
            )
        except ValidationError as error:
            found = explain(self.document, data, error, grammar=_GRAMMAR)
            self.problems.extend(_discreet(path, each) for path, each in found if path not in self.unresolved)
        else:
            policy = self._policy(file)
        raise_problems(self.problems, hint=_HINT)
        assert policy is not None  # noqa: S101 - for the type checker: else there was a problem
        return policy

    def _policy(self, file: PolicyFile) -> Policy | None:
        spec = file.spec
        for path, message in _broken(spec):
            self._report(path, message)
        self._check_overlaps(spec)
        if self.problems:
            return None
        return Policy(
            **{name: getattr(spec, name) for name in spec.model_fields_set},
            name=file.metadata.name,
            labels=file.metadata.labels,
            path=os.path.normpath(Path.cwd() / Path(self.document.source.path).expanduser()),
            digest=hashlib.sha256(self.document.source.text.encode()).hexdigest(),
        )

    def _report(self, path: DataPath, message: str, *, key: bool = False) -> None:
        if path not in self.unresolved:
            text = f"{dotted(path)}: {message}".removeprefix(": ")
            self.problems.append(self.document.problem(path, text, key=key))

    # ── values that are not there, and values that stand for others ──

    def _look_at_values(self) -> None:
        for path, value in walk(self.document.data):
            if value is None and path:
                self._report(path, "has no value; write one (such as {}), or leave it out", key=True)
                self.unresolved.update({path, path[:-1]})
            elif isinstance(value, str) and PRIVATE_KEY.search(value) and not SECRET_KEYS & set(path):
                self._report(path, "a private key does not belong into a policy; say where it is, with `identityFile`")
                self.unresolved.add(path)

    def _interpolated(self, value: object, path: DataPath) -> object:
        match value:
            case str():
                found: list[str] = []
                substituted = substitute(value, environ=self.environ, problems=found)
                for message in found:
                    self._report(path, message)
                if found:
                    self.unresolved.add(path)
                return value if found else substituted
            case dict():
                return {key: self._interpolated(item, (*path, key)) for key, item in value.items()}
            case list():
                return [self._interpolated(item, (*path, i)) for i, item in enumerate(value)]
        return value

    def _check_overlaps(self, spec: PolicySpec) -> None:
        """Refuse two locations of which one is, or is inside of, the other; Velero's buckets may overlap each other."""
        seen: list[tuple[str, StorageRoot]] = []
        for index, location in enumerate(spec.locations):
            root = storage_root(location.url)
            self._check_apart(("spec", "locations", index, "url"), root, seen)
            seen.append((f"location `{location.name}`", root))
        for index, source in enumerate(spec.sources):
            if source.velero:
                self._check_apart(
                    ("spec", "sources", index, "velero", "bucket"), storage_root(source.velero.bucket), seen
                )

    def _check_apart(self, path: DataPath, root: StorageRoot, locations: Sequence[tuple[str, StorageRoot]]) -> None:
        for name, other in locations:
            if relation := root.relation(other):
                self._report(path, f"this {relation} {name}: a loss would hit both")


def _discreet(path: DataPath, problem: Problem) -> Problem:
    """Return a problem without the value that it is about, where that may be a secret."""
    expected, _, seen = problem.message.partition(" is expected here, not ")
    if not SECRET_KEYS & set(path) or not seen or seen.startswith("what is in it"):
        return problem
    return replace(problem, message=f"{expected} is expected here")


def _broken(spec: PolicySpec) -> Iterator[tuple[DataPath, str]]:
    """Yield names that are given twice or refer to nothing, and numbers that do not go together."""
    for key, named in (
        ("sources", spec.sources),
        ("locations", spec.locations),
        ("proofs", spec.proofs),
        ("notifications", spec.notifications),
    ):
        yield from _given_twice(key, [each.name for each in named])
    sources = [each.name for each in spec.sources]
    for index, proof in enumerate(spec.proofs):
        if proof.source not in sources:
            near = did_you_mean(proof.source, sources) or f"; there are {', '.join(sources)}"
            yield ("spec", "proofs", index, "source"), f"there is no source `{proof.source}`{near}"
        elif (
            spec.sources[sources.index(proof.source)].velero
            and proof.rehearse
            and (given := proof.rehearse.model_fields_set - {"kubernetes_version"})
        ):
            key = proof.rehearse.written(min(given))
            message = f"source `{proof.source}` is Velero's, and `{key}` is for etcd snapshots; leave it out"
            yield ("spec", "proofs", index, "rehearse"), message
    if spec.copies > len(spec.locations):
        locations = "one location" if len(spec.locations) == 1 else f"{len(spec.locations)} locations"
        yield ("spec", "copies"), f"{spec.copies} copies need as many locations; this policy has {locations}"


def _given_twice(key: str, names: Sequence[str]) -> Iterator[tuple[DataPath, str]]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first != index:
            yield ("spec", key, index, "name"), f"`{name}` is the name of spec.{key}[{first}] already"
