"""Lines for a crontab, in the dialects that there are."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from clusterguard.errors import ConfigError
from clusterguard.policies.deploy.crontab import crontab, in_zone
from clusterguard.policies.policy import Schedule

COMMAND = ["/usr/bin/clusterguard", "run", "--quiet", "/etc/clusterguard/policy.yaml"]
LINE = "30 3 * * * /usr/bin/clusterguard run --quiet /etc/clusterguard/policy.yaml"


def lines(cron="30 3 * * *", zone="Europe/Berlin", command=COMMAND, **settings):
    settings = {"dialect": "cronie", "system_zone": "Europe/Berlin", **settings}
    text = crontab(Schedule(cron=cron, time_zone=zone), command, policy="production", **settings)
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("dialect", ["cronie", "debian"])
@pytest.mark.parametrize("system", ["Europe/Berlin", "Europe/Paris"])
def test_in_the_zone_of_the_machine_nothing_is_said_of_zones(dialect, system):
    assert lines(dialect=dialect, system_zone=system)[1:] == [LINE]


@pytest.mark.parametrize("system", ["Etc/UTC", "America/New_York", ""])
def test_cronie_is_told_the_zone_before_the_line(system):
    assert lines(system_zone=system)[1:] == ["CRON_TZ=Europe/Berlin", LINE]


@pytest.mark.parametrize(
    ("cron", "zone", "system", "expected"),
    [
        ("30 3 * * *", "Asia/Tokyo", "UTC", "30 18 * * *"),
        ("30 20 * * *", "America/Phoenix", "UTC", "30 3 * * *"),
        ("10 3,15 * * *", "Asia/Kathmandu", "UTC", "25 9,21 * * *"),
        ("30 12 1 * *", "Asia/Tokyo", "UTC", "30 3 1 * *"),
        ("30 3 * * *", "Europe/Berlin", "Europe/London", "30 2 * * *"),
        ("*/5 * * * *", "UTC", "Etc/UTC", "*/5 * * * *"),
    ],
)
def test_debian_gets_the_time_of_its_machine(cron, zone, system, expected):
    assert lines(cron, zone, dialect="debian", system_zone=system)[-1].startswith(f"{expected} /usr/bin")


@pytest.mark.parametrize(
    ("cron", "zone", "system", "reason"),
    [
        ("30 3 * * *", "Europe/Berlin", "UTC", "clock-changes"),
        ("30 3 * * *", "Europe/Berlin", "America/New_York", "clock-changes"),
        ("30 3 1 * *", "Asia/Tokyo", "UTC", "days-wrap"),
        ("30 3 * * 1", "Asia/Tokyo", "UTC", "days-wrap"),
        ("0 */6 * * *", "Asia/Tokyo", "UTC", "days-wrap"),
        ("30 3 * * *", "Asia/Tokyo", "", "no-system-zone"),
    ],
)
def test_what_debian_cannot_be_told_is_refused(cron, zone, system, reason):
    with pytest.raises(ConfigError) as caught:
        lines(cron, zone, dialect="debian", system_zone=system)
    assert (caught.value.code, caught.value.fields["reason"]) == ("schedule-not-possible", reason)
    assert caught.value.hint


def test_a_shifted_time_in_a_changing_hour_is_refused_where_it_would_not_be_the_same():
    with pytest.raises(ConfigError):
        in_zone(Schedule(cron="30 1 * * *", time_zone="Europe/London"), "UTC")


def test_a_path_is_safe_from_the_shell_and_from_cron():
    command = ["/opt/a b/clusterguard", "run", "/etc/100%; rm -rf x.yaml"]

    assert lines(command=command)[-1] == r"30 3 * * * '/opt/a b/clusterguard' run '/etc/100\%; rm -rf x.yaml'"


def test_a_path_with_a_line_break_is_refused():
    with pytest.raises(ConfigError, match="cannot be a line"):
        lines(command=["clusterguard", "a\n* * * * * rm"])


def test_mail_goes_to_whom_it_should():
    assert lines(mail_to="ops@example.com")[0] == "MAILTO=ops@example.com"
    with pytest.raises(ConfigError, match="not a valid address"):
        lines(mail_to='ops@example.com"\nPATH=x')


def test_the_path_of_programs_is_longer_than_crons_own():
    assert lines()[0] == "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def accepted(file):
    """Ask the crontab of this machine: cronie's tests a file by -T, Debian's by -n."""
    program = shutil.which("crontab")
    if program is None:
        pytest.skip("there is no crontab here; apt-get install cron")
    tested = subprocess.run([program, "-T", file], capture_output=True, text=True, check=False)
    if "usage" in tested.stderr:
        tested = subprocess.run([program, "-n", file], capture_output=True, text=True, check=False)
    return tested.returncode == 0


def test_a_real_cron_takes_the_lines(tmp_path):
    # One test for both: Debian's crontab sometimes fails while another one runs.
    file = tmp_path / "crontab"
    schedule = Schedule(cron="30 3 * * 1-5", time_zone="Europe/Berlin")
    for system in ("Europe/Berlin", "UTC"):
        settings = {"policy": "production", "dialect": "cronie", "mail_to": "ops@example.com"}
        text = crontab(schedule, COMMAND, system_zone=system, **settings)

        file.write_text(text)
        assert accepted(file)

        file.write_text(text.replace("\n30 3", "\n30 33"))
        assert not accepted(file)
