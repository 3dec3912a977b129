"""From a ``*.drill.yaml`` file to drills that can run, or to every problem in it with its place.

The order of things: YAML with positions, then the matrix, then for each combination of it: ``${…}``, the
schema, what the names in the file refer to, and the manifests it applies. A drill that loads needs nothing
more from the file system.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from clusterguard.documents.explain import explain
from clusterguard.documents.interpolation import references, substitute
from clusterguard.documents.reading import only_document, raising, value_at, walk
from clusterguard.documents.values import check_name, did_you_mean
from clusterguard.documents.yamlfile import describe, dotted, parse_documents, raise_problems, read_source
from clusterguard.drills.explain import DRILL_GRAMMAR
from clusterguard.drills.references import all_steps, broken_references
from clusterguard.drills.schema import DrillFile
from clusterguard.drills.steps.apply import Apply
from clusterguard.drills.values import expand_matrix, matrix_id
from clusterguard.errors import InvalidDocumentError, InvalidDrillError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import timedelta

    from clusterguard.documents.yamlfile import DataPath, Problem, YamlDocument
    from clusterguard.drills.schema import DrillSpec, Metadata, Step
    from clusterguard.drills.steps.base import Action, PhaseName, Requirement
    from clusterguard.drills.values import MatrixValue

__all__ = ["Drill", "LoadedStep", "load_drill", "load_drills"]

_NO_ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType({})
_HINT: Final = "docs/reference/drill-files.md has every key; `clusterguard drill schema` is for editors"
# Where null has a meaning of its own: inside of Kubernetes objects, and of what Velero is asked for.
_FREE_FORM: Final = frozenset({"resource", "patch", "manifest", "extra", "hooks"})
_DEPTH_OF_FREE_FORM: Final = 4  # spec, phase, index, action, key


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedStep:
    """One step, with everything it refers to resolved.

    Attributes:
        index: Its position in the phase, from 0.
        location: ``path:line:column`` of the step.
        source: The lines it is written on, numbered.
        objects: What an ``apply`` applies, from files or from the drill itself, lists taken apart.
    """

    phase: PhaseName
    index: int
    spec: Step
    cluster: str
    location: str
    source: str = field(repr=False)
    objects: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    @property
    def action(self) -> Action:
        """The one action."""
        return self.spec.action

    @property
    def verb(self) -> str:
        """The key of the action in the file, such as ``etcdRestore``."""
        return self.spec.verb

    @property
    def title(self) -> str:
        """What reports call the step."""
        return self.spec.name or self.verb

    @property
    def timeout(self) -> timedelta | None:
        """How long it may take, or None where the runner decides."""
        return self.spec.timeout


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """One drill that can run: a file, or one combination of its matrix.

    Attributes:
        id: Its name, with its combination in brackets: ``etcd-pods[k8s=1.36]``.
        location: ``path:line:column`` of its name.
        spec: With ``${…}`` replaced.
        combination: The values of the matrix that it runs with.
        steps: In the order of phases and file, cleanup too.
        text: The file as it was read.
    """

    id: str
    path: Path
    location: str
    metadata: Metadata
    spec: DrillSpec
    combination: Mapping[str, MatrixValue]
    steps: tuple[LoadedStep, ...]
    text: str = field(repr=False)

    @property
    def name(self) -> str:
        """The name as the file has it."""
        return self.metadata.name

    @property
    def default_cluster(self) -> str:
        """The name of the cluster that steps act on when they name none."""
        return next(iter(self.spec.effective_clusters))

    @property
    def requirements(self) -> frozenset[Requirement]:
        """What its steps need of the clusters they act on, that not every cluster has."""
        return frozenset().union(*(step.action.requirements() for step in self.steps))

    def phase(self, name: PhaseName) -> tuple[LoadedStep, ...]:
        """Return the steps of one phase, in the order of the file."""
        return tuple(step for step in self.steps if step.phase == name)


def load_drill(path: Path, *, environ: Mapping[str, str] = _NO_ENVIRONMENT, root: Path | None = None) -> Drill:
    """Load a file that holds one drill without a matrix.

    Args:
        path: The file.
        environ: What ``${env.NAME}`` may refer to.
        root: The directory that manifests must be in; the drill's own directory always may hold them, too.

    Raises:
        InvalidDrillError: Something is wrong in the file or in a manifest, and all of it is in the message;
            or its matrix makes several drills.
    """
    drills = load_drills(path, environ=environ, root=root)
    if len(drills) > 1:
        raise InvalidDrillError(
            f"{path}: its matrix makes {len(drills)} drills: {', '.join(drill.id for drill in drills)}",
            fields={"drills": [drill.id for drill in drills]},
            hint="load them with load_drills",
        )
    return drills[0]


def load_drills(
    path: Path, *, environ: Mapping[str, str] = _NO_ENVIRONMENT, root: Path | None = None
) -> tuple[Drill, ...]:
    """Load a file, with one drill for every combination of its matrix; arguments are those of `load_drill`.

    Raises:
        InvalidDrillError: Something is wrong in the file or in a manifest; all of it is in the message.
    """
    path = Path(path)
    with raising(InvalidDrillError):
        document = only_document(read_source(path), noun="drill", hint=_HINT)
        return _Loading(document, path, environ, root or path.parent).drills()


class _Loading:
    """Loads one document; collects what is wrong instead of stopping at it."""

    def __init__(self, document: YamlDocument, path: Path, environ: Mapping[str, str], root: Path) -> None:
        self.document = document
        self.path = path
        self.environ = environ
        self.manifests = _Manifests(path.parent, root)
        self.problems: list[Problem] = []
        self.other_errors: list[str] = []
        self.unresolved: set[DataPath] = set()  # reported where they are; not again for what they look like
        self.broken_matrix = False

    def drills(self) -> tuple[Drill, ...]:
        self._find_empty_values()
        drills = [self._drill(combination) for combination in self._combinations()]
        raise_problems(self.problems, also=self.other_errors, hint=_HINT)
        return tuple(drill for drill in drills if drill is not None)

    def _drill(self, combination: Mapping[str, MatrixValue]) -> Drill | None:
        data = self._interpolated(self.document.data, (), combination)
        try:
            file = DrillFile.model_validate_json(json.dumps(data))
        except ValidationError as error:
            found = explain(self.document, data, error, grammar=DRILL_GRAMMAR)
            self.problems.extend(problem for path, problem in found if path not in self.unresolved)
            return None
        for path, message in broken_references(file.spec):
            self._report(path, message)
        drill_id = matrix_id(file.metadata.name, combination)
        return Drill(
            id=drill_id,
            path=self.path,
            location=self.document.source.location(self.document.place(("metadata", "name"))),
            metadata=file.metadata,
            spec=file.spec,
            combination=MappingProxyType(dict(combination)),
            steps=tuple(self._steps(file.spec)),
            text=self.document.source.text,
        )

    def _steps(self, spec: DrillSpec) -> Iterator[LoadedStep]:
        default = next(iter(spec.effective_clusters))
        for phase, index, step in all_steps(spec):
            path = ("spec", phase, index)
            yield LoadedStep(
                phase=phase,
                index=index,
                spec=step,
                cluster=step.cluster or default,
                location=self.document.source.location(self.document.place(path)),
                source=self.document.source_of(path),
                objects=self._objects(step.action, (*path, step.verb)) if isinstance(step.action, Apply) else (),
            )

    def _report(self, path: DataPath, message: str, *, key: bool = False) -> None:
        self.problems.append(self.document.problem(path, f"{dotted(path)}: {message}".removeprefix(": "), key=key))

    # ── values that are not there, and values that stand for others ──

    def _find_empty_values(self) -> None:
        for path, value in walk(self.document.data):
            in_object = len(path) > _DEPTH_OF_FREE_FORM and path[_DEPTH_OF_FREE_FORM] in _FREE_FORM
            if value is None and path and not in_object:
                self._report(path, "has no value; write one (such as {}), or leave it out", key=True)
                self.unresolved.update({path, path[:-1]})

    def _combinations(self) -> list[dict[str, MatrixValue]]:
        path = ("spec", "matrix")
        matrix = value_at(self.document.data, path)
        if not _is_matrix(matrix):
            self.broken_matrix = matrix is not None  # the schema says why
            return [{}]
        assert isinstance(matrix, dict)  # noqa: S101 - for the type checker
        values = {key: [self._matrix_value(item, (*path, key, i)) for i, item in enumerate(items)]
                  for key, items in matrix.items()}  # fmt: skip
        try:
            return expand_matrix(values)
        except ValueError as error:
            self._report(path, str(error))
            self.broken_matrix = True
            return [{}]

    def _matrix_value(self, value: MatrixValue | float, path: DataPath) -> MatrixValue:
        if isinstance(value, float):
            return self.document.raw[path]  # 1.30 is a version, not 1.3
        if isinstance(value, str):
            return self._substituted(value, path, {})
        return value

    def _interpolated(self, value: object, path: DataPath, combination: Mapping[str, MatrixValue]) -> object:
        if path == ("spec", "matrix"):
            combination = {}
        match value:
            case str():
                return self._substituted(value, path, combination)
            case float() if path[:2] == ("spec", "matrix"):
                return self.document.raw[path]
            case dict():
                return {key: self._interpolated(item, (*path, key), combination) for key, item in value.items()}
            case list():
                return [self._interpolated(item, (*path, i), combination) for i, item in enumerate(value)]
        return value

    def _substituted(self, text: str, path: DataPath, combination: Mapping[str, MatrixValue]) -> MatrixValue:
        in_matrix = path[:2] == ("spec", "matrix")
        to_matrix = [name for name in references(text) if name.startswith("matrix.")]
        if to_matrix and in_matrix:
            self._report(path, f"`${{{to_matrix[0]}}}` inside of the matrix is a cycle")
        elif not (to_matrix and self.broken_matrix):
            found: list[str] = []
            value = substitute(text, environ=self.environ, matrix=combination, problems=found)
            for message in found:
                self._report(path, message)
            if not found:
                return value
        self.unresolved.add(path)
        return text

    # ── manifests ──

    def _objects(self, action: Apply, path: DataPath) -> tuple[Mapping[str, Any], ...]:
        if action.manifest is not None:
            inner = (*path, "manifest")
            written = value_at(self.document.data, inner)
            roots = [(*inner, i) for i in range(len(written))] if isinstance(written, list) else [inner]
            return tuple(
                thing
                for root, manifest in zip(roots, action.manifest, strict=True)
                for thing in self._checked(self.document, root, manifest)
            )
        places = [(*path, "file")] if action.file else [(*path, "files", i) for i in range(len(action.paths))]
        return tuple(
            thing
            for place, name in zip(places, action.paths, strict=True)
            for thing in self._objects_of_file(place, name)
        )

    def _objects_of_file(self, place: DataPath, name: str) -> Iterator[Mapping[str, Any]]:
        try:
            documents = self.manifests.documents(name)
        except InvalidDocumentError as error:
            self.other_errors.append(str(error))
            return
        except ValueError as error:
            self._report(place, str(error))
            return
        if not documents:
            self._report(place, f"{name} holds no object")
        for document in documents:
            yield from self._checked(document, (), document.data)

    def _checked(self, document: YamlDocument, root: DataPath, data: object) -> Iterator[Mapping[str, Any]]:
        """Yield an object, or the items of a list of them, and report what makes it none."""
        if isinstance(data, dict) and data.get("kind") == "List" and isinstance(data.get("items"), list):
            for index, item in enumerate(data["items"]):
                yield from self._checked(document, (*root, "items", index), item)
            return
        wrong = list(_wrong_in_object(data))
        for path, message in wrong:
            full = (*root, *path)
            text = f"{dotted(full)}: {message}".removeprefix(": ")
            self.problems.append(document.problem(full, text))
        if not wrong:
            assert isinstance(data, dict)  # noqa: S101 - for the type checker
            yield data


class _Manifests:
    """The YAML files that a drill may name: inside of its own directory or of the root, read once each."""

    def __init__(self, directory: Path, root: Path) -> None:
        self.directory = directory
        self.allowed = (directory.resolve(), root.resolve())
        self.read: dict[str, tuple[YamlDocument, ...]] = {}

    def documents(self, name: str) -> tuple[YamlDocument, ...]:
        """Return the documents of a file.

        Raises:
            ValueError: The file is not there, or where it must not be.
            InvalidDocumentError: It is not YAML.
        """
        if name not in self.read:
            self._check(name)
            self.read[name] = parse_documents(read_source(self.directory / name))
        return self.read[name]

    def _check(self, name: str) -> None:
        if Path(name).is_absolute():
            raise ValueError(f"{name} is an absolute path; name files relative to the drill file")
        try:
            resolved = (self.directory / name).resolve()
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{name} cannot be followed: {error}") from error
        if not any(resolved.is_relative_to(directory) for directory in self.allowed):
            raise ValueError(f"{name} is outside of {self.allowed[-1]}, where the files of this drill must be")
        if not resolved.exists():
            siblings = [str(Path(name).with_name(path.name)) for path in _listing(resolved.parent)]
            raise ValueError(f"no such file: {name}{did_you_mean(name, siblings)}")


def _listing(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _wrong_in_object(data: object) -> Iterator[tuple[DataPath, str]]:
    """Yield what keeps a value from being a Kubernetes object that a drill can find again."""
    if not isinstance(data, dict):
        yield (), f"a Kubernetes object is expected here, not {describe(data)}"
        return
    for key in ("apiVersion", "kind"):
        if not isinstance(data.get(key), str) or not data[key]:
            yield (key,), f"an object needs `{key}`"
    metadata = data.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if isinstance(name, str):
        try:
            check_name(name)
        except ValueError as error:
            yield ("metadata", "name"), str(error)
    elif name is not None:
        yield ("metadata", "name"), f"the name is {describe(name)} in YAML; write it in quotes"
    else:
        yield ("metadata",), "an object needs `metadata.name`: a drill looks for it by name"


# ── plain data ────────────────────────────────────────────────────────────────────────────────────────────


def _is_matrix(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(items, list) and all(isinstance(item, (str, int, float)) for item in items)
        for items in value.values()
    )
