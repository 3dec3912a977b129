# Sourced by every finding: a scratch folder that is removed at the end, and comparisons that decide the exit code.
set -euo pipefail
export LC_ALL=C

SCRATCH=$(mktemp -d)
SERVERS=()
CHANGED=0

finish() {
    local code=$?
    for server in "${SERVERS[@]}"; do kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; done
    rm -rf "$SCRATCH"
    [ "$code" -ne 0 ] || code=$CHANGED
    exit "$code"
}
trap finish EXIT

# expect WHAT WANTED SEEN: says whether the behaviour is still the one described; a difference makes the script fail.
expect() {
    if [ "$2" = "$3" ]; then
        printf 'as described  %s: %s\n' "$1" "$3"
    else
        printf 'CHANGED       %s: described %s, seen %s\n' "$1" "$2" "$3"
        CHANGED=1
    fi
}

# same A B: "equal" or "different", for `expect`.
same() { if [ "$1" = "$2" ]; then echo equal; else echo different; fi; }

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# install_python REQUIREMENT...: into a folder of its own; `python` then sees that folder alone.
install_python() {
    python3 -m pip install --quiet --disable-pip-version-check --no-warn-conflicts --target "$SCRATCH/python" "$@"
}
python() { PYTHONPATH="$SCRATCH/python" python3 -s "$@"; }

# new_module REQUIREMENT...: a temporary Go module in $SCRATCH/module with exactly these versions.
new_module() {
    mkdir -p "$SCRATCH/module" "$SCRATCH/bin"
    cd "$SCRATCH/module"
    go mod init example.invalid/finding 2>/dev/null
    go get "$@" 2>/dev/null
    cd - >/dev/null
}
# build NAME PACKAGE: a program of that module into $SCRATCH/bin.
build() { (cd "$SCRATCH/module" && go build -mod=mod -o "$SCRATCH/bin/$1" "$2"); }
