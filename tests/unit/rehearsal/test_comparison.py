"""What is served beside what is stored: every way in which a list may fail, and who is to blame for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from clusterguard.clusters.kube import Page
from clusterguard.clusters.kube_discovery import ApiResource
from clusterguard.errors import ClusterError, ClusterUnreachableError, ResourceNotFoundError
from clusterguard.rehearsal.comparison import Comparison, StoredObjects, digest, only_adds
from clusterguard.rehearsal.report import Level

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PLURAL = "widgets.example.com"
NOBODY_CONVERTS = ClusterError("conversion webhook failed")


def widget(version: str, name: str, *, revision: int = 5, **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop", "resourceVersion": str(revision)}
    return {"apiVersion": f"example.com/{version}", "kind": "Widget", "metadata": metadata, **fields}


class Api:
    """An API server that holds widgets in the versions that they are stored in, and converts none."""

    def __init__(self, versions: list[str], held: dict[str, dict[str, Any]], *, alive: bool = True) -> None:
        self._versions, self._held, self._alive = versions, held, alive

    def resources(self) -> tuple[ApiResource, ...]:
        return self.all_versions()[:1]

    def all_versions(self) -> tuple[ApiResource, ...]:
        return tuple(
            ApiResource(
                group="example.com", version=version, kind="Widget", plural="widgets", namespaced=True,
                verbs=frozenset({"list", "get"}),
            )
            for version in self._versions
        )  # fmt: skip

    def list_pages(self, resource: ApiResource, **_: Any) -> Iterator[Page]:
        self._require_alive()
        if any(each["apiVersion"] != resource.api_version for each in self._held.values()):
            raise NOBODY_CONVERTS
        yield Page(items=list(self._held.values()), resource_version="9", last=True)

    def get(self, resource: ApiResource, name: str, namespace: str | None = None) -> Mapping[str, Any]:
        self._require_alive()
        if name not in self._held:
            raise ResourceNotFoundError(f"no {name} in {namespace}")
        if self._held[name]["apiVersion"] != resource.api_version:
            raise NOBODY_CONVERTS
        return self._held[name]

    def request(self, *_: str, **__: float) -> None:
        self._require_alive()

    def _require_alive(self) -> None:
        if not self._alive:
            raise ClusterUnreachableError("connection refused")


def compared(
    api: Api, *stored: dict[str, Any], custom: bool = True, read: bool = False
) -> tuple[dict[str, Level], StoredObjects]:
    holds = StoredObjects()
    for item in stored:
        holds.add(PLURAL, f"shop/{item['metadata']['name']}", item, custom=custom)
    found = {item["metadata"]["name"]: item for item in stored if read}
    findings = Comparison(
        api,  # type: ignore[arg-type]
        revision=9,
        stored=holds,
        read=lambda _, __, name: found.get(name),
    ).run()
    return {finding.code: finding.level for finding in findings}, holds


def held(*items: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item for item in items}


def test_what_is_stored_is_served() -> None:
    one = widget("v1", "a")
    levels, stored = compared(Api(["v1"], held(one)), one)
    assert (levels, stored.kinds[PLURAL].ok) == ({}, True)


def test_two_stored_versions_that_nobody_converts_here_are_no_fault_of_the_backup() -> None:
    old, new = widget("v1alpha1", "old"), widget("v1", "new")
    levels, stored = compared(Api(["v1", "v1alpha1"], held(old, new)), old, new)
    assert (levels, stored.kinds[PLURAL].ok) == ({"cannot-be-listed": Level.WARNING}, True)


def test_a_stored_version_that_is_gone_and_cannot_be_converted_is_red() -> None:
    old, new = widget("v1alpha1", "old"), widget("v1", "new")
    levels, stored = compared(Api(["v1"], held(old, new)), old, new)
    assert levels["not-comparable"] is Level.ERROR
    assert (stored.kinds[PLURAL].equal, stored.kinds[PLURAL].unreadable) == (1, 1)


def test_a_version_that_is_not_served_is_compared_by_name() -> None:
    stored = widget("v1alpha1", "a")
    levels, holds = compared(Api(["v1"], held(widget("v1", "a"), widget("v1", "extra"))), stored)
    assert levels == {"stored-in-another-version": Level.WARNING, "not-in-the-file": Level.ERROR}
    assert (holds.kinds[PLURAL].converted, holds.kinds[PLURAL].extra) == (1, 1)


def test_what_the_api_server_has_written_since_is_not_called_changed() -> None:
    old, new = widget("v1alpha1", "old"), widget("v1", "new")
    later = {**new, "metadata": {**new["metadata"], "resourceVersion": "12"}}
    levels, _ = compared(Api(["v1", "v1alpha1"], held(old, later)), old, new)
    assert levels == {"cannot-be-listed": Level.WARNING, "not-comparable": Level.ERROR}


def test_a_server_that_died_says_nothing_about_the_backup() -> None:
    with pytest.raises(ClusterUnreachableError):
        compared(Api(["v1"], held(widget("v1", "a")), alive=False), widget("v1", "a"))


def test_objects_nested_deeper_than_can_be_written_have_a_digest() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"a": deep}
    assert digest(widget("v1", "a", spec=deep)) == digest({"spec": deep, **widget("v1", "a")})
    assert digest(widget("v1", "a", spec=deep)) != digest(widget("v1", "b", spec=deep))


OLD = {"strategy": {"type": "Rolling"}, "containers": [{"name": "a"}], "empty": None}
FILLED = {"strategy": {"type": "Rolling", "most": 1}, "containers": [{"name": "a", "probe": {}}], "limit": 3}


@pytest.mark.parametrize(
    ("served", "custom", "levels"),
    [
        (FILLED, False, {"filled-in-when-served": Level.NOTE}),
        (FILLED, True, {"differs-when-served": Level.ERROR}),
        (FILLED | {"strategy": {"most": 1}}, False, {"differs-when-served": Level.ERROR}),
        (FILLED | {"containers": [{"name": "a"}, {"name": "b"}]}, False, {"differs-when-served": Level.ERROR}),
        (FILLED | {"strategy": {"type": "Recreate"}}, False, {"differs-when-served": Level.ERROR}),
    ],
    ids=["added", "added to a custom resource", "one dropped", "an element more", "changed"],
)
def test_what_the_api_server_fills_in_is_no_loss(
    served: dict[str, Any], custom: bool, levels: dict[str, Level]
) -> None:
    api = Api(["v1"], held(widget("v1", "a", spec=served)))
    found, stored = compared(api, widget("v1", "a", spec=OLD), custom=custom, read=True)
    assert found == levels
    assert stored.kinds[PLURAL].ok == ("filled-in-when-served" in levels)


def test_metadata_is_not_filled_in() -> None:
    item, served = widget("v1", "a"), widget("v1", "a")
    served["metadata"]["labels"] = {"a": "b"}
    found, _ = compared(Api(["v1"], held(served)), item, custom=False, read=True)
    assert found == {"differs-when-served": Level.ERROR}


@pytest.mark.parametrize(("stored", "served"), [(1, True), (0, None), ("", None), ([], None), (1, 1.0), ([1], [1, 2])])
def test_another_value_is_no_addition(stored: object, served: object) -> None:
    assert not only_adds({"a": stored}, {"a": served})
