"""The status as people see it: on a console, and as a page."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from rich.console import Console
from watched import DAY, DUE, NOW, a_policy, all_well, catalog, entry, nightly, proof_of, run_of, status

from clusterguard.errors import ClusterGuardError, ConfigError, StoreUnavailableError
from clusterguard.policies.copies.catalog import Leftover
from clusterguard.policies.policy import EtcdSource, Location, Proof, Source
from clusterguard.policies.watching.page import render_page, write_page
from clusterguard.policies.watching.verdict import age_in_words, size_in_words
from clusterguard.terminal.status_view import status_view
from html_page import Page

EVIL = "<script>alert('x')</script>"
DOWN = StoreUnavailableError("the bucket did not answer", hint="look at the network")


def trouble():
    """One of everything that can be wrong."""
    policy = a_policy(
        description="Production, every night",
        sources=(
            Source(name="etcd", etcd=EtcdSource(cluster="context:prod")),
            Source(name="shop-velero", etcd=EtcdSource(cluster="context:prod")),
        ),
        locations=(*a_policy().locations, Location(name="oregon", url="s3://backups-us/prod")),
        proofs=(
            Proof(name="weekly", drill="d.yaml", source="etcd", every=7 * DAY),
            Proof(name="monthly-velero", drill="d.yaml", source="shop-velero", every=30 * DAY),
        ),
    )
    near = [*nightly(28), *(entry(DUE - n * DAY, source="shop-velero", name=f"v{n}") for n in range(3, 30))]
    near[8] = replace(near[8], verified=None)
    far = [replace(each, problem="other bytes") if n == 5 else each for n, each in enumerate(near)]
    runs = (run_of(), run_of("shop-velero", at=DUE - 3 * DAY, outcome="warning", detail="oregon did not answer"))
    proofs = (proof_of(at=NOW - 9 * DAY), proof_of("monthly-velero", source="shop-velero", at=NOW - 12 * DAY))
    catalogs = {name: catalog(name, *each, runs=runs, proofs=proofs) for name, each in (("near", near), ("far", far))}
    return status({**catalogs, "oregon": DOWN}, policy)


def shown(found, width=100, **settings):
    console = Console(file=io.StringIO(), width=width, highlight=False, **settings)
    console.print(status_view(found))
    return console.file.getvalue()


# ---- on a console --------------------------------------------------------------------------------------------


def test_one_that_is_well_fits_on_one_screen():
    lines = shown(status(), 80).splitlines()
    assert lines[0].rstrip() == "prod  ✓ PROTECTED  2026-11-22 08:00 UTC"
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("width", [80, 100, 120])
def test_all_that_is_wrong_is_said_in_words_and_fits(width):
    text = shown(trouble(), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("prod  ✗ NOT PROTECTED")
    assert "✗ shop-velero: 3 backups were due since 2026-11-20 02:00 UTC and not made" in text
    assert re.search(r"oregon +✗ down", text)
    assert "■■!!!" in text
    assert re.search(r"weekly +etcd +✗ 9 days ago", text)
    assert len(lines) <= 45


def test_no_name_is_torn_that_has_room():
    text = shown(trouble(), 80)
    for name in ("shop-velero", "monthly-velero", "oregon"):
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


def test_without_colour_nothing_is_lost():
    colour = re.sub(r"\x1b\[[\d;]*m", "", shown(trouble(), force_terminal=True))
    assert colour == shown(trouble(), no_color=True)


def test_markup_in_names_is_no_markup():
    location = Location.model_construct(name="[red]", url="/x")
    found = status(policy=a_policy(name="[bold]x[/bold]", locations=(location,)))
    assert "[bold]x[/bold]" in shown(found)
    assert "[red]" in shown(found)


def test_many_reasons_are_counted():
    locations = tuple(Location(name=f"l{n}", url="/x") for n in range(30))
    text = shown(status({}, a_policy(locations=locations)))
    assert "more: --json has them all" in text


AGES = [
    (None, "never"),
    (timedelta(seconds=59), "0 min"),
    (timedelta(minutes=99), "99 min"),
    (timedelta(hours=2), "2 h"),
    (timedelta(hours=47), "47 h"),
    (timedelta(hours=48), "2 days"),
    (timedelta(days=400), "400 days"),
]


def test_ages_in_words():
    assert [(age, age_in_words(age)) for age, _ in AGES] == AGES


SIZES = [
    (0, "0 B"),
    (999, "999 B"),
    (1000, "1.0 KiB"),
    (30_000, "29.3 KiB"),
    (5 << 30, "5.0 GiB"),
    (3 << 50, "3,072.0 TiB"),
]


def test_sizes_in_words():
    assert [(size, size_in_words(size)) for size, _ in SIZES] == SIZES


# ---- as a page -----------------------------------------------------------------------------------------------


def test_the_page_says_what_there_is():
    page = Page(render_page(trouble()))
    assert (page.open, page.torn) == ([], [])
    for words in (
        "not protected",
        "Production, every night",
        "3 backups were due since 2026-11-20 02:00 UTC and not made",
        "the bucket did not answer",
        "shop-velero",
        "monthly-velero",
        "1m33s",
    ):
        assert words in page.text
    assert page.attributes.count(("i", "class", "missed")) == 3 + 1  # and one in the legend


def test_screen_and_page_say_what_could_not_be_read_and_what_broke_off():
    half = Leftover(source="etcd", name="etcd-20261120T020000Z", keys=("x.db",), size=5 << 20, modified=NOW)
    far = catalog("far", *nightly(unread="503 Slow Down"), leftovers=(half,))
    found = status({**all_well(), "far": far})
    for text in (shown(found), render_page(found)):
        assert "503 Slow Down" in text
        assert "5.0 MiB" in text


def test_the_page_of_a_policy_that_is_well():
    page = Page(render_page(status()))
    assert "Every source has a recent backup" in page.text
    assert ("div", "class", "verdict protected") in page.attributes


def test_the_page_of_a_policy_that_never_ran():
    page = Page(
        render_page(status({name: catalog(name, runs=(), proofs=(), updated=None) for name in ("near", "far")}))
    )
    assert "never" in page.text
    assert (page.open, page.torn) == ([], [])


def test_nothing_is_loaded_from_anywhere_and_nothing_runs():
    page = Page(render_page(trouble()))
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags)
    assert not [each for each in page.attributes if each[1] in {"src", "href", "onload", "onclick", "onerror"}]
    policy = next(value for _, name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert "url(" not in "".join(page.words)
    assert "@import" not in "".join(page.words)


def test_whatever_is_called_like_code_is_text():
    policy = a_policy(
        name=EVIL,
        description=EVIL,
        sources=(Source.model_construct(name=EVIL, etcd=EtcdSource(cluster="context:prod")),),
        locations=(Location.model_construct(name=EVIL, url=f'x"onload="{EVIL}'), Location(name="far", url=EVIL)),
        proofs=(Proof.model_construct(name=EVIL, drill="d.yaml", source=EVIL, every=DAY),),
    )
    catalogs = {
        EVIL: catalog(
            EVIL,
            entry(source=EVIL, name=EVIL, problem=EVIL),
            policy=EVIL,
            runs=(run_of(EVIL, outcome="failed", detail=EVIL),),
            proofs=(proof_of(EVIL, source=EVIL, outcome="error", detail=EVIL, backup=EVIL),),
            notes=(EVIL,),
        ),
        "far": StoreUnavailableError(EVIL, hint=EVIL),
    }
    text = render_page(status(catalogs, policy))
    page = Page(text)
    assert "<script" not in text
    assert page.text.count(EVIL) >= 12
    assert not [each for each in page.attributes if each[1].startswith("on")]
    assert (page.open, page.torn) == ([], [])


def test_several_policies_share_a_page():
    page = Page(render_page(status(), trouble()))
    assert page.tags.count("section") == 2


def test_it_is_written_whole_and_for_everybody_to_read(tmp_path):
    file = tmp_path / "status.html"
    file.write_text("old")
    write_page(file, status())
    assert file.read_text() == render_page(status())
    assert file.stat().st_mode & 0o777 == 0o644
    assert [each.name for each in tmp_path.iterdir()] == ["status.html"]


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ClusterGuardError, match="No such file"):
        write_page(tmp_path / "none" / "status.html", status())


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError) as raised:
        render_page(status(all_well()))
    assert raised.value.hint == "pip install 'clusterguard[policy]'"
