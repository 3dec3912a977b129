"""The stores that need nothing but this machine; S3's turn is in tests/integration/stores."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import replace

import pytest

from clusterguard.errors import ObjectExistsError, ObjectNotFoundError
from clusterguard.stores import LocalStore, MemoryStore
from clusterguard.testing import ObjectStoreContract


class TestMemoryStore(ObjectStoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()


class TestLocalStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        return LocalStore(tmp_path / "not" / "there" / "yet")


class _VisibleEarly(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with super().put(key, overwrite=overwrite, if_version=if_version):
            pass
        with super().put(key, overwrite=True) as writer:
            yield writer


class _KeepsTheTorn(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            try:
                yield writer
            except BaseException as error:  # noqa: BLE001 - keeping what is torn is the mistake it makes
                torn = error
            else:
                return
        raise torn


class _LastOneWins(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        if not overwrite:
            self._refuse_taken(key)
        with super().put(key, overwrite=True, if_version=if_version) as writer:
            yield writer


class _ChecksOnlyAtTheEnd(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        data = io.BytesIO()
        yield data
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            writer.write(data.getvalue())


class _KeepsTheCallersBuffer(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        pieces = []

        class Writer:
            write = staticmethod(pieces.append)

        yield Writer
        with super().put(key, overwrite=overwrite, if_version=if_version) as writer:
            for piece in pieces:
                writer.write(piece)


class _ReadsWhatIsThereNow(MemoryStore):
    @contextmanager
    def get(self, key):
        store, place = self, [0]
        with super().get(key):
            pass

        class Reader:
            def read(self, size=-1):
                data = store._objects[key][0][place[0] :][: size if size >= 0 else None]
                place[0] += len(data)
                return data

        yield Reader()


class _Unordered(MemoryStore):
    def list(self, prefix=""):
        return reversed(list(super().list(prefix)))


class _OnePage(MemoryStore):
    def list(self, prefix=""):
        return iter(list(super().list(prefix))[:1000])


class _PrefixIsADirectory(MemoryStore):
    def list(self, prefix=""):
        return (info for info in super().list() if not prefix or info.key.startswith(f"{prefix.rstrip('/')}/"))


class _ForgetsNothing(MemoryStore):
    def delete(self, key):
        self.stat(key)


class _MissingIsEmpty(MemoryStore):
    @contextmanager
    def get(self, key):
        try:
            with super().get(key) as reader:
                yield reader
        except ObjectNotFoundError:
            yield io.BytesIO()


class _IgnoresVersions(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        with super().put(key, overwrite=overwrite or if_version is not None) as writer:
            yield writer


class _ComparesVersionsEarly(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        if if_version is not None:
            self._refuse_changed(key, if_version)
        with super().put(key, overwrite=overwrite or if_version is not None) as writer:
            yield writer


class _ReplacesWhatIsGone(MemoryStore):
    def _refuse_changed(self, key, version):
        if key in self._objects:
            super()._refuse_changed(key, version)


class _ForgetsVersionsInLists(MemoryStore):
    def list(self, prefix=""):
        return (replace(info, version="") for info in super().list(prefix))


class _RefusesToOverwrite(MemoryStore):
    @contextmanager
    def put(self, key, *, overwrite=False, if_version=None):
        if key in self._objects:
            raise ObjectExistsError("taken")
        with super().put(key) as writer:
            yield writer


@pytest.mark.parametrize(
    ("broken", "promise", "arguments"),
    [
        (_VisibleEarly, "test_an_object_is_invisible_until_it_is_whole", [3]),
        (_KeepsTheTorn, "test_an_exception_leaves_nothing", [3]),
        (_KeepsTheTorn, "test_an_exception_leaves_the_old_object", [3]),
        (_LastOneWins, "test_a_key_taken_meanwhile_is_refused_at_the_end", [3]),
        (_LastOneWins, "test_of_many_writers_of_one_key_one_wins", []),
        (_ChecksOnlyAtTheEnd, "test_a_taken_key_is_refused_on_entry", []),
        (_KeepsTheCallersBuffer, "test_a_written_buffer_may_be_reused_at_once", [7]),
        (_ReadsWhatIsThereNow, "test_a_reader_never_mixes_two_versions", ["overwrite"]),
        (_Unordered, "test_lists_in_the_order_of_keys", []),
        (_OnePage, "test_lists_more_than_a_page", []),
        (_PrefixIsADirectory, "test_a_prefix_is_text_not_a_directory", []),
        (_ForgetsNothing, "test_a_deleted_object_is_gone", []),
        (_MissingIsEmpty, "test_a_missing_object_is_named", ["never"]),
        (_IgnoresVersions, "test_a_version_is_replaced_once", [3]),
        (_ComparesVersionsEarly, "test_a_version_that_changes_meanwhile_is_not_replaced", []),
        (_ComparesVersionsEarly, "test_of_many_writers_that_name_one_version_one_wins", []),
        (_ReplacesWhatIsGone, "test_what_is_gone_is_not_replaced", ["seen"]),
        (_IgnoresVersions, "test_what_is_gone_is_not_replaced", ["of another object"]),
        (_ForgetsVersionsInLists, "test_a_version_lasts_as_long_as_the_bytes", []),
        (_RefusesToOverwrite, "test_overwriting_replaces", [5]),
    ],
)
def test_the_contract_goes_red_for_a_store_that_breaks_it(broken, promise, arguments):
    check = getattr(ObjectStoreContract(), promise)
    check(MemoryStore(), *arguments)
    with pytest.raises((Exception, pytest.fail.Exception)):  # an assertion, or what the broken store makes of it
        check(broken(), *arguments)
