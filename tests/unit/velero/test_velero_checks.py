"""What Velero accepts and then never does is refused before it is asked."""

from dataclasses import dataclass, field

import pytest

from clusterguard.errors import ConfigError, ResourceNotFoundError
from clusterguard.velero.checks import require_firing, require_kinds
from clusterguard.velero.options import BackupOptions


@dataclass
class Kind:
    namespaced: bool


@dataclass
class Api:
    """A cluster that has ConfigMaps, and StorageClasses without a namespace."""

    gaps: tuple = ()
    kinds: dict = field(
        default_factory=lambda: {"configmaps": Kind(True), "storageclasses.storage.k8s.io": Kind(False)}
    )

    def resource(self, kind):
        if kind == "widgets":
            raise ConfigError("several groups have one")
        try:
            return self.kinds[kind]
        except KeyError as error:
            raise ResourceNotFoundError(f"no kind {kind}", hint="did you mean …") from error

    def discovery_gaps(self):
        return self.gaps


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (BackupOptions(included_resources=("configmaps", "nosuch")), "unknown-kind"),
        (BackupOptions(included_namespace_scoped_resources=("nosuch",)), "unknown-kind"),
        (BackupOptions(ordered_resources={"nosuch": ("shop/a",)}), "unknown-kind"),
        (BackupOptions(included_cluster_scoped_resources=("configmaps",)), "wrong-scope"),
        (BackupOptions(included_namespace_scoped_resources=("storageclasses.storage.k8s.io",)), "wrong-scope"),
        (BackupOptions(excluded_cluster_scoped_resources=("configmaps",)), "wrong-scope"),
    ],
)
def test_kinds_that_match_nothing_are_refused(options, code):
    with pytest.raises(ConfigError) as refused:
        require_kinds(Api(), options)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "options",
    [
        BackupOptions(),
        BackupOptions(included_resources=("configmaps", "storageclasses.storage.k8s.io", "*", "widgets")),
        BackupOptions(excluded_resources=("nosuch",)),
        BackupOptions(excluded_cluster_scoped_resources=("nosuch", "*")),
        BackupOptions(included_cluster_scoped_resources=("storageclasses.storage.k8s.io",)),
    ],
)
def test_kinds_that_the_cluster_has_are_asked_for(options):
    require_kinds(Api(), options)


def test_a_kind_is_not_refused_while_an_api_does_not_answer():
    require_kinds(Api(gaps=("metrics.k8s.io/v1beta1",)), BackupOptions(included_resources=("nosuch",)))


@pytest.mark.parametrize(
    "cron", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 31 feb,APR ?", "TZ=UTC 0 0 30-31 2 *", "0 0 30/1 2 *"]
)
def test_a_schedule_that_never_fires_is_refused(cron):
    with pytest.raises(ConfigError) as refused:
        require_firing(cron)
    assert refused.value.code == "never-fires"


@pytest.mark.parametrize("cron", ["0 3 13 * 5", "0 3 1,15 * 0", "TZ=UTC 0 3 13 * FRI", "0 0 30 2 1"])
def test_days_that_releases_of_velero_read_differently_are_refused(cron):
    with pytest.raises(ConfigError) as refused:
        require_firing(cron)
    assert refused.value.code == "ambiguous-days"


@pytest.mark.parametrize(
    "cron",
    [
        "0 3 * * *",
        "0 3 * * 5",
        "0 3 ? * 5",
        "0 0 29 2 *",
        "0 0 31 * *",
        "0 0 31 1-4 *",
        "0 0 */2 2 *",
        "0 0 28-31 2 *",
        "@every 6h",
        "@daily",
        "not a schedule",
        "0 0 x 2 *",
        "0 0 1 nosuch *",
    ],
)
def test_a_schedule_that_fires_or_that_the_server_refuses_is_passed_on(cron):
    require_firing(cron)
