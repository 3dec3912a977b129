"""The project's chores: ``nox`` runs the quick ones, ``nox -s NAME`` any of them."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "typing", "architecture", "tests"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-e", ".[dev]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def typing(session: nox.Session) -> None:
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def architecture(session: nox.Session) -> None:
    session.install("-e", ".[dev]")
    session.run("lint-imports")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(default=False)
def minimums(session: nox.Session) -> None:
    """The lower bounds are true: the unit tests pass with the oldest release of each dependency."""
    session.run_install("uv", "pip", "install", "--resolution", "lowest-direct", "-e", ".[test]")
    session.run("pytest", "tests/unit")


@nox.session(default=False)
def drills(session: nox.Session) -> None:
    session.install("-e", ".[pytest]")
    session.run("pytest", "drills/", *session.posargs)


@nox.session(default=False)
def changelog(session: nox.Session) -> None:
    """Show what the next release's entry of CHANGELOG.md will be; with `-- --version X.Y.Z` write it."""
    session.install("towncrier>=24.8")
    session.run("towncrier", "build", *(session.posargs or ["--draft", "--version", "next"]))


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew, for every Python and platform at once."""
    session.install("uv")
    session.run(
        "uv", "pip", "compile", "pyproject.toml", "--extra", "dev", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-emit-index-url", "--no-header", "--output-file", "requirements.lock", "--upgrade",
    )  # fmt: skip
