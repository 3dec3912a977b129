"""From a policy file to a policy that can run, or to every problem in it with its place.

A policy that loads needs nothing but its own file: whether keys, drills and kubeconfigs are there is for the machine
that runs it. What is wrong is told without the secrets that may have been written where only their place belongs.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from clusterguard.documents.explain import Grammar, explain
from clusterguard.documents.interpolation import substitute
from clusterguard.documents.reading import only_document, walk
from clusterguard.documents.values import did_you_mean
from clusterguard.documents.yamlfile import Problem, dotted, raise_problems, read_source
from clusterguard.errors import ClusterGuardError, InvalidDocumentError, InvalidPolicyError
from clusterguard.policies.files.extents import Extent, extent_of, located
from clusterguard.policies.files.redaction import PRIVATE_KEY, SECRET_KEYS, secret_in_place, without_secrets
from clusterguard.policies.files.schema import CompressionSpec, PolicyFile
from clusterguard.policies.policy import (
    Encryption,
    EtcdSource,
    Heartbeat,
    Location,
    Metrics,
    Notification,
    Policy,
    Proof,
    Schedule,
    Secret,
    VeleroSource,
    Verification,
)
from clusterguard.policies.retention import RetentionPolicy
from clusterguard.policies.schedule import check_cron, read_time_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.documents.yamlfile import DataPath, SourceText, YamlDocument
    from clusterguard.policies.files.schema import (
        EncryptionSpec,
        EtcdSpec,
        NotificationSpec,
        PolicySpec,
        RetentionSpec,
        SourceSpec,
        VeleroSpec,
    )
    from clusterguard.policies.policy import Source

__all__ = ["load_policy", "parse_policy"]

_HINT: Final = "docs/reference/policy-files.md has every key; `clusterguard policy schema` is for editors"
_LITERAL_KEYS: Final = frozenset({"on"})  # a boolean in YAML 1.1, and a key of notifications
_GRAMMAR: Final = Grammar(root=PolicyFile, union="`none` or {level: 3}", unknown_key=secret_in_place)


def load_policy(path: Path, *, environ: Mapping[str, str]) -> Policy:
    """Load a policy file; paths in it are relative to it, and come out absolute.

    Args:
        path: The file.
        environ: What ``${env.NAME}`` may refer to.

    Raises:
        InvalidPolicyError: Something is wrong in the file; all of it is in the message, with its places.
        ConfigError: The extra ``policy`` is not installed.
    """
    path = Path(path)
    problem: InvalidPolicyError
    try:
        return parse_policy(read_source(path), directory=path.absolute().parent, environ=environ)
    except InvalidDocumentError as error:
        problem = InvalidPolicyError(without_secrets(error.message), hint=error.hint)
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
            file = PolicyFile.model_validate_json(json.dumps(data))
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
        self._check_schedule(spec)
        self._check_extents(spec)
        retention = self._retention(spec.retention)
        if self.problems:
            return None
        return Policy(
            name=file.metadata.name,
            path=str(self._path(self.document.source.path, Path.cwd())),
            digest=hashlib.sha256(self.document.source.text.encode()).hexdigest(),
            description=spec.description,
            labels=MappingProxyType(dict(file.metadata.labels)),
            sources=tuple(self._source(each) for each in spec.sources),
            schedule=_schedule(spec),
            locations=tuple(Location(name=each.name, url=located(each.url, self.directory)) for each in spec.locations),
            copies=spec.copies or len(spec.locations),
            retention=retention,
            encryption=self._encryption(spec.encryption) if spec.encryption else None,
            compression_level=spec.compression.level if isinstance(spec.compression, CompressionSpec) else None,
            verification=Verification(every=spec.verification.every, per_run=spec.verification.per_run),
            proofs=tuple(
                Proof(name=each.name, drill=self._file(each.drill), source=each.source, every=each.every)
                for each in spec.proofs
            ),
            notifications=tuple(self._notification(each) for each in spec.notifications),
            metrics=Metrics(textfile=self._file(spec.metrics.textfile), pushgateway=spec.metrics.pushgateway or ""),
            heartbeat=Heartbeat(url=self._secret(spec.heartbeat.url_file, spec.heartbeat.url_env))
            if spec.heartbeat
            else None,
            scratch=self._file(spec.scratch),
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

    # ── what the schema does not see ──

    def _check_schedule(self, spec: PolicySpec) -> None:
        if spec.schedule is None:
            return
        path = ("spec", "schedule")
        self._try((*path, "cron"), lambda: check_cron(spec.schedule.cron if spec.schedule else ""))
        self._try((*path, "timeZone"), lambda: read_time_zone(spec.schedule.time_zone if spec.schedule else ""))

    def _check_extents(self, spec: PolicySpec) -> None:
        """Refuse what is no store, and two places of which one is, or is inside of, the other."""
        places: list[tuple[DataPath, str, str]] = [
            (("spec", "locations", index, "url"), f"location `{each.name}`", each.url)
            for index, each in enumerate(spec.locations)
        ]
        places += [
            (("spec", "sources", index, "velero", "bucket"), f"the bucket of source `{each.name}`", each.velero.bucket)
            for index, each in enumerate(spec.sources)
            if each.velero
        ]
        seen: list[tuple[str, Extent]] = []
        for path, name, url in places:
            try:
                extent = extent_of(located(url, self.directory))
            except ClusterGuardError as error:
                self._report(path, f"{error.message}{f'; {error.hint}' if error.hint else ''}")
                continue
            is_location = path[1] == "locations"
            for other, other_extent in seen:
                both_buckets = not is_location and not other.startswith("location")
                if not both_buckets and (relation := extent.relation(other_extent)):
                    self._report(path, f"this {relation} {other}; what one of them loses, both lose")
            seen.append((name, extent))

    def _retention(self, spec: RetentionSpec) -> RetentionPolicy:
        try:
            return RetentionPolicy(**{name: getattr(spec, name) for name in type(spec).model_fields})
        except ValueError as error:
            self._report(("spec", "retention"), str(error))
            return RetentionPolicy()

    def _try(self, path: DataPath, check: Callable[[], object]) -> None:
        try:
            check()
        except ValueError as error:
            self._report(path, str(error))

    # ── values ──

    def _source(self, spec: SourceSpec) -> Source:
        if spec.etcd is not None:
            return self._etcd(spec.name, spec.etcd)
        assert spec.velero is not None  # noqa: S101 - the schema wants one of the two
        return self._velero(spec.name, spec.velero)

    def _etcd(self, name: str, spec: EtcdSpec) -> EtcdSource:
        return EtcdSource(
            name=name,
            cluster=self._cluster(spec.cluster or ""),
            kubeconfig=self._file(spec.kubeconfig),
            node_shell=spec.node_shell or "",
            endpoints=spec.endpoints,
            ca=self._file(spec.ca_file),
            cert=self._file(spec.cert_file),
            key=self._file(spec.key_file),
            user=self._optional_secret(None, spec.user_env),
            password=self._optional_secret(None, spec.password_env),
        )

    def _velero(self, name: str, spec: VeleroSpec) -> VeleroSource:
        return VeleroSource(
            name=name,
            cluster=self._cluster(spec.cluster),
            kubeconfig=self._file(spec.kubeconfig),
            bucket=located(spec.bucket, self.directory),
            namespace=spec.namespace,
            velero_location=spec.location or "",
            included_namespaces=spec.included_namespaces,
            excluded_namespaces=spec.excluded_namespaces,
            selector=spec.selector or "",
            volumes=spec.volumes,
            timeout=spec.timeout,
        )

    def _encryption(self, spec: EncryptionSpec) -> Encryption:
        passphrase = self._optional_secret(spec.passphrase_file, spec.passphrase_env)
        return Encryption(
            recipients=spec.recipients,
            recipients_file=self._file(spec.recipients_file),
            passphrase=passphrase,
            identity=self._optional_secret(spec.identity_file, spec.identity_env),
        )

    def _notification(self, spec: NotificationSpec) -> Notification:
        return Notification(name=spec.name, url=self._secret(spec.url_file, spec.url_env), on=spec.on)

    def _optional_secret(self, file: str | None, env: str | None) -> Secret | None:
        return self._secret(file, env) if file or env else None

    def _secret(self, file: str | None, env: str | None) -> Secret:
        return Secret(file=self._file(file), env=env or "")

    def _cluster(self, cluster_ref: str) -> str:
        provider, _, rest = cluster_ref.partition(":")
        return f"{provider}:{self._file(rest)}" if provider == "kubeconfig" else cluster_ref

    def _file(self, name: str | None) -> str:
        return str(self._path(name, self.directory)) if name else ""

    @staticmethod
    def _path(name: str, directory: Path) -> Path:
        # Not resolved: a link that points elsewhere tomorrow is to be followed then.
        return Path(os.path.normpath(directory / Path(name).expanduser()))


def _schedule(spec: PolicySpec) -> Schedule | None:
    given = spec.schedule
    return Schedule(cron=given.cron, time_zone=given.time_zone, grace=given.grace) if given else None


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
    if spec.copies is not None and spec.copies > len(spec.locations):
        places = "one location" if len(spec.locations) == 1 else f"{len(spec.locations)} locations"
        yield ("spec", "copies"), f"{spec.copies} copies need as many locations, and there is only {places}"


def _given_twice(key: str, names: Sequence[str]) -> Iterator[tuple[DataPath, str]]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first != index:
            yield ("spec", key, index, "name"), f"`{name}` is the name of spec.{key}[{first}] already"
