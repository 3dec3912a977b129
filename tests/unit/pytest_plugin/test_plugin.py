"""``pytest drills/``: what is collected, what runs, and what people and machines read afterwards."""

import json
import xml.etree.ElementTree as ET
from datetime import timedelta

import pytest

# ---- verdicts --------------------------------------------------------------------------------------------


def test_a_drill_that_is_proven_passes(pytester, drill, canned):
    drill("green")
    result = pytester.runpytest()
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK


def test_not_proven_is_failed_and_could_not_tell_is_an_error(pytester, three):
    result = pytester.runpytest("-v", "-rA")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.re_match_lines_random([
        r"green\.drill\.yaml::green PASSED.*",
        r"red\.drill\.yaml::red FAILED.*",
        r"unknown\.drill\.yaml::unknown ERROR.*",
        r"FAILED red\.drill\.yaml::red - FAIL: not recovered",
        r"ERROR unknown\.drill\.yaml::unknown - ERROR: etcd does not answer",
    ])  # fmt: skip


def test_a_red_drill_shows_its_result_and_its_lines_in_place_of_a_traceback(pytester, drill, canned):
    drill("red", "FAIL")
    output = pytester.runpytest().stdout
    output.fnmatch_lines(["*FAIL*red*not recovered*", "*→ look at the cluster*", "*what is not as it was*"])
    output.fnmatch_lines(["*red.drill.yaml:18:5*", "*18 |   - restored: {}*"])
    output.no_fnmatch_line("*Traceback*")
    output.no_fnmatch_line("*DrillNotProvenError*runtest*")


def test_a_bug_of_ours_is_shown_as_one_and_is_an_error(pytester, drill, canned):
    drill("green", **{"verdict: PASS": "raises: a bug"})
    result = pytester.runpytest("--drill-min=1", "--junitxml=report.xml")
    result.stdout.fnmatch_lines(["*ZeroDivisionError*", "ERROR green.drill.yaml::green*"])
    result.assert_outcomes(errors=1)
    (case,) = cases(pytester)
    assert ([each.tag for each in case], properties(case)) == (
        ["properties", "error"],
        [("clusterguard.verdict", "ERROR")],
    )


def cases(pytester):
    """The test cases of the JUnit report."""
    return list(ET.parse(pytester.path / "report.xml").iter("testcase"))  # noqa: S314 - our own report


def properties(case):
    return [(item.get("name"), item.get("value")) for item in case.iter("property")]


# ---- choosing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        (["-k", "green"], {"green"}),
        (["-k", "weekly"], {"red"}),
        (["-m", "drill(tier='nightly')"], {"green", "unknown"}),
        (["-m", "drill"], {"green", "red", "unknown"}),
        (["-m", "not drill"], set()),
        (["--drill-selector", "tier=nightly"], {"green", "unknown"}),
        (["--drill-selector", "tier in (weekly,monthly)"], {"red"}),
        (["--drill-selector", "tier!=nightly"], {"red"}),
        (["red.drill.yaml"], {"red"}),
        (["red.drill.yaml::red"], {"red"}),
    ],
)
def test_drills_are_chosen_as_tests_are(pytester, three, options, chosen):
    result = pytester.runpytest("--collect-only", "-q", "--strict-markers", *options)
    assert {line.rpartition("::")[2] for line in result.outlines if "::" in line} == chosen


def test_a_matrix_is_one_item_for_each_combination(pytester, drill, canned):
    drill("green", **{"spec:\n": 'spec:\n  matrix: {k8s: ["1.35", "1.36"]}\n'})
    result = pytester.runpytest("-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::green[[]k8s=1.35[]] PASSED*", "*::green[[]k8s=1.36[]] PASSED*"])


def test_other_yaml_is_left_alone(pytester, canned):
    (pytester.path / "drill.yaml").write_text("kind: Drill")
    assert pytester.runpytest().ret == pytest.ExitCode.NO_TESTS_COLLECTED


# ---- slips -----------------------------------------------------------------------------------------------


def test_an_invalid_file_is_an_error_of_the_collection_with_its_place(pytester, drill, canned):
    drill("green")
    path = drill("bad", **{"selector: app=web": "selektor: app=web"})
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines([f"*{path}:14:42: *unknown key `selektor`; did you mean `selector`?*"])
    result.stdout.no_fnmatch_line("*Traceback*")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--drill-selector", "tier=a=b"], "*--drill-selector: invalid label selector 'tier=a=b'*"),
        (["--drill-selector", "a b"], "*--drill-selector: invalid label selector 'a b'*"),
        (["--drill-longest-wait", "10"], "*--drill-longest-wait: *"),
        (["--drill-lock-timeout", "soon"], "*--drill-lock-timeout: *"),
        (["--drill-keep", "sometimes"], "*invalid choice*"),
        (["--drill-min", "many"], "*invalid int*"),
    ],
)
def test_a_slip_in_an_option_is_told_at_once(pytester, three, options, told):
    result = pytester.runpytest(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([told])


def test_programs_that_cannot_be_had_are_told_in_words(pytester, drill, canned, monkeypatch):
    from clusterguard.errors import ToolchainError

    def nothing(*_, **__):
        raise ToolchainError("etcd: neither on PATH nor to be downloaded", hint="clusterguard toolchain install")

    monkeypatch.setattr("clusterguard.toolchain.from_environment", nothing)
    drill("green", **{"context: nowhere": "embedded: {}"})
    result = pytester.runpytest()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*etcd: neither on PATH*", "*→ clusterguard toolchain install*"])


def test_a_drill_whose_programs_cannot_be_had_is_an_error_and_others_run(pytester, drill, canned, monkeypatch):
    from clusterguard.errors import ToolchainError

    def nothing(*_):
        raise ToolchainError("etcd: neither on PATH nor to be downloaded", hint="clusterguard toolchain install")

    monkeypatch.setattr("clusterguard.toolchain.Toolchain.missing", lambda _, *names: {"etcd"} & set(names))
    monkeypatch.setattr("clusterguard.toolchain.Toolchain.ensure", nothing)
    drill("green")
    drill("lacking", **{"context: nowhere": "embedded: {}"})
    result = pytester.runpytest()
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*etcd: neither on PATH*", "*→ clusterguard toolchain install*"])


# ---- options ---------------------------------------------------------------------------------------------


def test_what_is_decided_by_options(pytester, drill, canned):
    drill("green")
    pytester.runpytest(
        "--drill-cluster=context:staging", "--drill-allow-context=stag*", "--drill-allow-context=test",
        "--drill-kubeconfig=kube", "--drill-evidence=proof", "--drill-keep=on-failure", "--drill-omit-restore",
        "--drill-longest-wait=10s", "--drill-lock-timeout=5m",
    )  # fmt: skip
    (settings,) = canned
    assert settings.cluster == "context:staging"
    assert settings.allowed_contexts == ("stag*", "test")
    assert (str(settings.kubeconfig), str(settings.evidence)) == ("kube", "proof")
    assert (settings.keep, settings.omit_restore) == ("on-failure", True)
    assert settings.longest_wait == timedelta(seconds=10)
    assert settings.lock_timeout == timedelta(minutes=5)


def test_what_is_decided_by_nobody(pytester, drill, canned):
    drill("green")
    pytester.runpytest()
    (settings,) = canned
    assert (settings.cluster, settings.allowed_contexts, settings.kubeconfig) == ("embedded", (), None)
    assert (settings.keep, settings.omit_restore, settings.evidence) == ("never", False, None)


def test_the_command_line_goes_before_the_environment_and_that_before_the_ini_file(
    pytester, drill, canned, monkeypatch
):
    drill("green")
    pytester.makeini("[pytest]\ndrill_cluster = context:ini\ndrill_allow_context = ini-*\ndrill_evidence = ini-proof")
    pytester.runpytest()
    monkeypatch.setenv("CLUSTERGUARD_DRILL_CLUSTER", "context:env")
    monkeypatch.setenv("CLUSTERGUARD_DRILL_EVIDENCE", "env-proof")
    pytester.runpytest()
    pytester.runpytest("--drill-cluster=context:option", "--drill-evidence=proof", "--drill-allow-context=stag*")
    assert [settings.cluster for settings in canned] == ["context:ini", "context:env", "context:option"]
    assert [str(settings.evidence) for settings in canned] == ["ini-proof", "env-proof", "proof"]
    assert [settings.allowed_contexts for settings in canned] == [("ini-*",), ("ini-*",), ("stag*",)]


def test_a_drill_may_take_longer_than_other_tests(pytester, drill, canned):
    """pytest-timeout would kill the cleanup, too."""
    drill("green")
    pytester.makeconftest("def pytest_collection_modifyitems(items):\n    print(*items[0].iter_markers('timeout'))")
    result = pytester.runpytest("--timeout=1", "-s")
    result.stdout.fnmatch_lines(["*Mark(name='timeout', args=(2400.0,)*"])


@pytest.mark.parametrize(("least", "code"), [("1", 0), ("2", 1)])
def test_fewer_drills_than_asked_for_are_no_success(pytester, drill, canned, least, code):
    drill("green")
    result = pytester.runpytest("--drill-min", least)
    assert result.ret == code
    told = "*drills: 1 came to a verdict, --drill-min asks for 2*"
    (result.stdout.fnmatch_lines if code else result.stdout.no_fnmatch_line)([told] if code else told)


def test_no_drill_at_all_is_fewer_than_asked_for(pytester):
    pytester.makepyfile("def test_something(): pass")
    result = pytester.runpytest("--drill-min", "1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*drills: 0 came to a verdict*"])


def test_the_plan_runs_nothing(pytester, three, canned):
    result = pytester.runpytest("--drill-plan", "--drill-min", "3")
    assert result.ret == pytest.ExitCode.OK
    assert canned == []
    result.stdout.fnmatch_lines(["drill green *", "*context nowhere, which exists*", "  ! *Pod*", "drill red *"])


def test_collecting_needs_no_cluster_and_no_programs(pytester, drill, canned, monkeypatch):
    monkeypatch.setattr("clusterguard.toolchain.from_environment", lambda *_, **__: pytest.fail("looked for programs"))
    drill("green", **{"context: nowhere": "embedded: {}"})
    result = pytester.runpytest("--collect-only")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*DrillFile green.drill.yaml*", "*DrillItem green*"])


@pytest.mark.parametrize(
    ("options", "minimum"),
    [((), None), (("--drill-mutate",), 100), (("--drill-mutate", "--drill-mutate-min=80"), 80)],
)
def test_drills_are_attacked_only_where_that_is_asked_for(pytester, drill, canned, options, minimum):
    drill("green")
    pytester.runpytest(*options)
    assert [settings.mutate for settings in canned] == [minimum]


def test_the_junit_report_has_the_score(pytester, drill, canned):
    drill("green")
    pytester.runpytest("--drill-mutate", "--junitxml=report.xml")
    (found,) = (dict(properties(case)) for case in cases(pytester))
    names = ("found", "counted", "score")
    assert [found[f"clusterguard.defects_{name}"] for name in names] == ["2", "3", "66.7"]


# ---- for machines ----------------------------------------------------------------------------------------


def test_the_junit_report_has_verdict_and_times(pytester, three):
    pytester.runpytest("--junitxml=report.xml")
    found = {case.get("name"): dict(properties(case)) for case in cases(pytester)}
    assert found["green"] == {
        "clusterguard.verdict": "PASS",
        "clusterguard.run_id": "ab12cd34",
        "clusterguard.rto_seconds": "8.75",
        "clusterguard.rpo_seconds": "0.5",
        "clusterguard.phase.restore_seconds": "7.25",
    }
    assert found["red"]["clusterguard.verdict"] == "FAIL"
    assert "clusterguard.rto_seconds" not in found["red"]


def test_the_junit_report_tells_a_failure_from_an_error(pytester, three):
    pytester.runpytest("--junitxml=report.xml")
    found = {case.get("name"): [each.tag for each in case if each.tag != "properties"] for case in cases(pytester)}
    assert found == {"green": [], "red": ["failure"], "unknown": ["error"]}
    (suite,) = ET.parse(pytester.path / "report.xml").iter("testsuite")  # noqa: S314 - our own report
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")


@pytest.mark.parametrize(
    ("verdict", "outcomes", "code"),
    [("FAIL PASS", {"passed": 1, "rerun": 1}, 0), ("ERROR PASS", {"passed": 1, "rerun": 1}, 0),
     ("FAIL FAIL", {"failed": 1, "rerun": 1}, 1), ("FAIL ERROR", {"errors": 1, "rerun": 1}, 1)],
)  # fmt: skip
def test_a_drill_that_is_tried_again_tells_of_each_try_what_became_of_it(
    pytester, drill, canned, verdict, outcomes, code
):
    drill("flaky", verdict)
    result = pytester.runpytest("--reruns=1", "--junitxml=report.xml")
    assert result.parseoutcomes() == outcomes
    assert result.ret == code
    tries = [properties(case) for case in cases(pytester)]  # pytest-rerunfailures gives each a case of its own
    assert all(len(each) == len(dict(each)) for each in tries)
    assert [dict(each)["clusterguard.verdict"] for each in tries] == verdict.split()


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_it_counts_once_among_those_that_are_asked_for(pytester, drill, canned_everywhere, workers):
    drill("flaky", "FAIL PASS")
    result = pytester.runpytest_subprocess("--reruns=1", "--drill-min=2", *workers)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["drills: 1 came to a verdict, --drill-min asks for 2"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_workers_of_xdist_run_drills(pytester, drill, canned_everywhere):
    drill("green")
    drill("red", "FAIL")
    drill("unknown", "ERROR")
    result = pytester.runpytest_subprocess("-n", "1", "--drill-min", "4", "--junitxml=report.xml")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*FAIL*red*not recovered*", "*drills: 3 came to a verdict, --drill-min asks for 4*"])
    result.stdout.fnmatch_lines(["ERROR unknown.drill.yaml::unknown*"])
    assert (pytester.path / "report.xml").read_text().count('"clusterguard.verdict"') == 3


def test_the_plan_needs_no_workers(pytester, drill, canned_everywhere):
    drill("green")
    result = pytester.runpytest_subprocess("-n", "1", "--drill-plan")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["drill green *"])


# ---- the plugin itself -----------------------------------------------------------------------------------


def test_without_drills_nothing_of_clusterguard_is_imported_but_the_plugin(pytester):
    pytester.makepyfile(
        """
        import json, sys

        def test_modules():
            heavy = "boto3 botocore etcd3gw google_crc32c kubernetes pycurl requests pydantic rich yaml typer".split()
            ours = [name for name in sys.modules if name.startswith("clusterguard.")]
            print(json.dumps([sorted(set(heavy) & set(sys.modules)), ours]))
        """
    )
    # pytest-kind's own plugin imports much, so `addopts` of whoever cares leave it out.
    result = pytester.runpytest_subprocess("-s", "-p", "no:cacheprovider", "-p", "no:pytest-kind")
    (line,) = [line for line in result.outlines if line.startswith("[[") or "[[" in line]
    heavy, ours = json.loads(line[line.index("[[") :].rstrip("."))
    assert heavy == []
    assert ours == ["clusterguard.lazy_names", "clusterguard.pytest_plugin"]


def test_the_plugin_can_be_switched_off(pytester, drill):
    drill("green")
    result = pytester.runpytest_subprocess("-p", "no:clusterguard", ".")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_every_option_is_in_the_help(pytester):
    result = pytester.runpytest("--help")
    result.stdout.fnmatch_lines(
        ["*disaster-recovery drills (clusterguard):*", "*--drill-cluster=WORD*", "*--drill-min=N*"]
    )
    pytester.runpytest("--markers").stdout.fnmatch_lines(["@pytest.mark.drill(*): a drill file, with its labels"])


def test_it_says_what_will_run_where(pytester, three):
    result = pytester.runpytest("--drill-evidence=proof", "--drill-cluster=context:staging")
    result.stdout.fnmatch_lines(["drills: 3, on context:staging where they name no cluster, evidence in proof"])


# ---- one cluster at a time -------------------------------------------------------------------------------

GROUPS = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        print("GROUP", item.name, *(mark.args[0] for mark in item.iter_markers("xdist_group")))
"""


@pytest.mark.parametrize(
    ("clusters", "default", "groups"),
    [
        ({"a": "{context: x}", "b": "{context: x}", "c": "{}"}, "embedded", {"a": "x", "b": "x", "c": ""}),
        ({"a": "{context: x}", "b": "{context: y}", "c": "{embedded: {}}"}, "embedded", {"a": "x", "b": "y", "c": ""}),
        ({"a": "{}", "b": "{context: y}", "c": "{kind: {}}"}, "context:y", {"a": "y", "b": "y", "c": ""}),
        ({"a": "{}", "b": "{context: kind-k}", "c": "{}"}, "kind:k", {"a": "kind-k", "b": "kind-k", "c": "kind-k"}),
        ({"a": "{}", "b": "{}", "c": "{context: x}"}, "kind", {"a": "", "b": "", "c": "x"}),
        (
            {"a": "{context: x}", "b": "{context: y}", "c": "{context: x}\n    more: {context: y}"},
            "embedded",
            {"a": "x,y", "b": "x,y", "c": "x,y"},
        ),
    ],
)  # fmt: skip
def test_drills_that_share_a_cluster_are_one_group_of_xdist(pytester, drill, canned, clusters, default, groups):
    for name, cluster in clusters.items():
        drill(name, **{"{context: nowhere}": cluster})
    pytester.makeconftest(GROUPS)
    result = pytester.runpytest("-s", "--collect-only", f"--drill-cluster={default}")
    told = dict(line.removeprefix("GROUP ").partition(" ")[::2] for line in result.outlines if line.startswith("GROUP"))
    assert told == groups


@pytest.mark.parametrize(
    ("default", "group"), [("context:x", "x"), ("embedded:mine", "clusterguard-mine"), ("kind", "")]
)
def test_tests_that_use_the_fixture_are_in_the_group_of_its_cluster(pytester, drill, canned, default, group):
    drill("same", **{"{context: nowhere}": "{}"})
    pytester.makepyfile("def test_uses(drill_cluster): pass\ndef test_other(): pass")
    pytester.makeconftest(GROUPS)
    result = pytester.runpytest("-s", "--collect-only", f"--drill-cluster={default}")
    told = dict(line.removeprefix("GROUP ").partition(" ")[::2] for line in result.outlines if line.startswith("GROUP"))
    assert told == {"same": group, "test_uses": group, "test_other": ""}


# ---- fixtures --------------------------------------------------------------------------------------------

USES = """
from clusterguard.etcd import EtcdSnapshotter
from clusterguard.validate import RestoreValidator

def test_one(drill_cluster, etcd_snapshotter, restore_validator):
    assert isinstance(etcd_snapshotter, EtcdSnapshotter)
    assert isinstance(restore_validator, RestoreValidator)

def test_two(drill_cluster, restore_validator):
    pass
"""


class Given:
    """What `open_cluster` gives and who locks it, with a memory of what was done."""

    etcd = None

    def __init__(self):
        self.done = []
        self.asked = []
        self.api = self

    def __enter__(self):
        self.done.append("created")
        return self

    def __exit__(self, *_):
        self.done.append("deleted")

    def close(self):
        self.done.append("connections closed")

    def open(self, cluster_ref, **options):
        self.asked.append((cluster_ref, options.get("nodes") or None))
        return self

    def lock(self, api, **options):
        self.done.append("locked")
        return self

    def release(self):
        self.done.append("released")


@pytest.fixture
def given(monkeypatch, canned):
    given = Given()
    monkeypatch.setattr("clusterguard.clusters.opening.open_cluster", given.open)
    monkeypatch.setattr("clusterguard.clusters.lock.lock_cluster", given.lock)
    monkeypatch.setattr("clusterguard.clusters.node_shell.open_node_shells", lambda refs: f"shell {refs}")
    monkeypatch.delenv("CLUSTERGUARD_NODE_SHELL", raising=False)
    return given


OTHERS = ["locked", "released", "connections closed"]


@pytest.mark.parametrize(
    ("options", "done"),
    [
        ([], ["created", "deleted"]),
        (["--drill-cluster=embedded:mine", "--drill-allow-context=clusterguard-mine"], OTHERS),
        (["--drill-cluster=kind:mine", "--drill-allow-context=kind-*"], OTHERS),
        (["--drill-cluster=context:staging", "--drill-allow-context=staging"], OTHERS),
    ],
)
def test_tests_get_a_cluster_of_their_session_which_is_deleted_only_if_it_was_created(pytester, given, options, done):
    pytester.makepyfile(USES)
    pytester.runpytest(*options).assert_outcomes(passed=2)
    assert (len(given.asked), given.done) == (1, done)


@pytest.mark.parametrize("cluster_ref", ["context:prod", "kind:mine", "embedded:mine", "kubeconfig:/etc/kube"])
def test_the_fixture_gives_no_cluster_that_nobody_allowed(pytester, given, cluster_ref):
    """The same rule as for drills: the environment or an ini file may name a cluster, and do not allow it."""
    pytester.makepyfile(USES)
    result = pytester.runpytest(f"--drill-cluster={cluster_ref}", "--drill-allow-context=other")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*NotAllowedError*"])
    assert (given.asked, given.done) == ([], [])


def test_the_fixture_reaches_the_node_that_was_named(pytester, given):
    pytester.makepyfile(USES)
    allowed = ["--drill-cluster=context:staging", "--drill-allow-context=staging"]
    pytester.runpytest(*allowed, "--drill-node-shell=ssh:cp-1").assert_outcomes(passed=2)
    assert given.asked == [("context:staging", "shell ssh:cp-1")]
