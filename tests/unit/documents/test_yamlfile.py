"""YAML with positions: what is kept, what is refused, and where it is said to be."""

from __future__ import annotations

import os

import pytest
import yaml

from clusterguard.documents import yamlfile
from clusterguard.documents.yamlfile import Place, SourceText, parse_documents, read_source
from clusterguard.errors import InvalidDocumentError


@pytest.fixture(params=["C", "Python"], autouse=True)
def loader(request, monkeypatch):
    """Both of PyYAML's parsers: the C one is not everywhere."""
    loaders = {"C": getattr(yaml, "CSafeLoader", None), "Python": yaml.SafeLoader}
    if loaders[request.param] is None:
        pytest.skip("this PyYAML is without libyaml")
    monkeypatch.setattr(yamlfile, "_LOADER", loaders[request.param])


def parse(text):
    (document,) = parse_documents(SourceText("f.yaml", text))
    return document


def refused(text):
    with pytest.raises(InvalidDocumentError) as caught:
        parse_documents(SourceText("f.yaml", text))
    return str(caught.value)


def test_every_value_and_key_has_its_place():
    document = parse("a:\n  b: [1,\n   {c: x}]\n")

    assert document.data == {"a": {"b": [1, {"c": "x"}]}}
    assert document.place(("a", "b", 0)) == Place(2, 7)
    assert document.place(("a", "b", 1, "c")) == Place(3, 8)
    assert document.place(("a", "b", 1, "c"), key=True) == Place(3, 5)


def test_what_is_not_there_has_the_place_of_what_is_around_it():
    assert parse("a:\n  b: 1\n").place(("a", "x", 3)) == Place(2, 3)


def test_columns_count_characters_and_lines_end_as_yaml_says():
    document = parse("ä: {ü: 1}\u2028b: 2\n")

    assert document.place(("ä", "ü"), key=True) == Place(1, 5)
    assert document.place(("b",), key=True) == Place(2, 1)


def test_scalars_mean_what_they_mean_to_kubernetes():
    text = "{a: no, b: on, c: 0644, d: 0x1f, e: 1.50, f: 2024-01-01, g: 12:30:00, h: ~, i: '1', j: =, k: <<}"

    assert parse(text).data == {
        "a": False, "b": True, "c": 420, "d": 31, "e": 1.5, "f": "2024-01-01", "g": "12:30:00", "h": None,
        "i": "1", "j": "=", "k": "<<",
    }  # fmt: skip


def test_scalars_are_kept_as_they_were_written():
    assert parse("a: 1.50\n").raw == {("a",): "1.50"}


def test_whole_numbers_as_keys_are_text():
    assert parse("80: web\n").data == {"80": "web"}


def test_aliases_become_copies_with_the_place_of_their_anchor():
    document = parse("a: &x {k: 1}\nb: *x\n")

    assert document.data == {"a": {"k": 1}, "b": {"k": 1}}
    assert document.data["a"] is not document.data["b"]
    assert document.place(("b", "k")) == Place(1, 11)


def test_merge_keys_fill_in_what_is_not_given():
    document = parse("x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz: {<<: [*x, *y], c: 3}\n")

    assert document.data["z"] == {"a": 1, "b": 1, "c": 3}


def test_several_documents_are_kept_apart_and_empty_ones_left_out():
    documents = parse_documents(SourceText("f.yaml", "---\na: 1\n---\n---\n# nothing\n---\nb: 2\n"))

    assert [document.data for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].place(("b",)) == Place(7, 4)


def test_what_is_refused_is_refused_at_its_place():
    for text, expected in [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3:1: key `a` is here twice; the first is at 1:1"),
        ("a: {b: 1, 'b': 2}\n", "f.yaml:1:11: key `b` is here twice; the first is at 1:5"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", "f.yaml:2:13: key `<<` is here twice; the first is at 2:5"),
        ("on: 1\n", "f.yaml:1:1: key `on` is a boolean in YAML; write it in quotes"),
        ("{~: 1}\n", "f.yaml:1:2: key `~` is nothing in YAML; write it in quotes"),
        ("{[a]: 1}\n", "f.yaml:1:2: a key must be text"),
        (
            "a: !!python/object/apply:os.getpid []\n",
            "f.yaml:1:4: tag `!!python/object/apply:os.getpid` is refused",
        ),
        ("a: !vault x\n", "f.yaml:1:4: tag `!vault` is refused"),
        ("a: !!binary aGk=\n", "f.yaml:1:4: tag `!!binary` is refused"),
        ("a: !!int x\n", "f.yaml:1:4: `x` is not what its tag `!!int` says"),
        ("a: !!int\n", "f.yaml:1:4: `` is not what its tag `!!int` says"),
        ("a: !!bool x\n", "f.yaml:1:4: `x` is not what its tag `!!bool` says"),
        ("a: !!map x\n", "f.yaml:1:4: `x` is not what its tag says"),
        ("a: !!str [x]\n", "f.yaml:1:4: this is not what its tag `!!str` says"),
        ("a: .nan\n", "f.yaml:1:4: `.nan` is not a number that Kubernetes can store"),
        (f"a: {'9' * 5000}\n", "f.yaml:1:4: `9999"),
        ('a: "\\0"\n', "f.yaml:1:4: NUL and halves of surrogate pairs are not text"),
        ("a: &x\n  b: [1, *x]\n", "f.yaml:2:10: alias `*x` is inside of what it stands for: a cycle"),
        ("a: *nobody\n", "f.yaml:1:4: not YAML: "),
        ("a: 1\n b: 2\n", "f.yaml:2:3: not YAML: "),
        ("a: [1, 2\n", "f.yaml:2:1: not YAML: "),
        ("{<<: 1}\n", "f.yaml:1:6: `<<` merges mappings only"),
        ("a: b: c\n", "f.yaml:1:5: not YAML: "),
    ]:
        assert expected in refused(text)


def test_a_problem_shows_its_line_with_a_caret():
    assert refused("ok: 1\nkey: !vault x\n").endswith("    2 | key: !vault x\n      |      ^")


def test_all_problems_of_a_file_are_told_at_once_and_once():
    text = "a: &a {x: 1, x: 2}\nb: *a\nc: .inf\n"

    assert [line for line in refused(text).splitlines() if line.startswith("f.yaml")] == [
        "f.yaml:1:14: key `x` is here twice; the first is at 1:8",
        "f.yaml:3:4: `.inf` is not a number that Kubernetes can store",
    ]


@pytest.mark.parametrize("form", ["sequence", "mapping", "merge"])
def test_a_bomb_of_anchors_is_refused_at_once(form):
    shapes = {
        "sequence": lambda names: f"[{', '.join(names)}]",
        "mapping": lambda names: f"{{{', '.join(f'k{i}: {name}' for i, name in enumerate(names))}}}",
        "merge": lambda names: f"{{<<: [{', '.join(names)}], own: 1}}",
    }
    lines = ["l0: &l0 {x: y}"]
    lines += [f"l{i}: &l{i} {shapes[form]([f'*l{i - 1}'] * 9)}" for i in range(1, 20)]

    # Without the budget this would build 9^19 values, and never end.
    assert "aliases here expand to more than 50,000 values" in refused("\n".join(lines))


def test_deep_nesting_is_refused_before_anything_recurses():
    for text in ["[" * 100_000, "{a: " * 50_000, "- " * 500, "\n".join(f"{' ' * i}a:" for i in range(100))]:
        assert "nested deeper than 64 levels" in refused(text)


def test_nesting_through_aliases_is_refused_too():
    lines = ["l0: &l0 [x]", *(f"l{i}: &l{i} [*l{i - 1}]" for i in range(1, 100))]

    assert "nested deeper than 64 levels" in refused("\n".join(lines))


def test_merging_through_aliases_is_bounded_too():
    lines = ["l0: &l0 {x: 1}", *(f"l{i}: &l{i} {{<<: *l{i - 1}}}" for i in range(1, 100))]

    assert "merged deeper than 64 levels" in refused("\n".join(lines))


def test_the_source_of_a_value_ends_where_its_content_does():
    document = parse("a:\n- x:\n    y: 1\n  z: 2\n\n  # about the next\n- w: 3\n")

    assert document.source_of(("a", 0)) == "    2 | - x:\n    3 |     y: 1\n    4 |   z: 2"


def test_a_large_file_without_aliases_is_no_bomb(monkeypatch):
    monkeypatch.setattr(yamlfile, "MAX_EXPANDED", 3)

    assert len(parse("- {a: 1}\n" * 100).data) == 100
    assert "expand to more than 3 values" in refused("a: &x [1, 2]\nb: *x\nc: *x\n")


def test_a_byte_order_mark_is_no_text(tmp_path):
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")

    assert read_source(path).text == "a: 1\n"


def test_a_file_that_is_no_text_is_refused(tmp_path):
    for content, expected in [
        (b"a: 1\nb: \xe4h\n", ":2:4: byte 0xe4 is not UTF-8"),
        ("a: 1\n".encode("utf-16"), ":1:1: byte 0xff is not UTF-8"),
        (b"a: 1\nb: x\x07\n", ":2:5: character U+0007 is not allowed in YAML"),
        (b"#" * (4 * 1024 * 1024 + 1), ": larger than 4 MiB"),
    ]:
        path = tmp_path / "f.yaml"
        path.write_bytes(content)

        with pytest.raises(InvalidDocumentError) as caught:
            read_source(path)

        assert f"{path}{expected}" in str(caught.value)


def test_a_file_that_is_none_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    for name, expected in [
        ("missing", "no such file"),
        ("pipe", "not a regular file"),
        (".", "not a regular file"),
    ]:
        with pytest.raises(InvalidDocumentError, match=expected):
            read_source(tmp_path / name)
