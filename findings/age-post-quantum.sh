#!/usr/bin/env bash
# age 1.3.2, pyrage 1.4.0: a post-quantum recipient shares no file with a classic one, and age in Python knows none.
#
# Behaviour: age encrypts to any number of X25519 recipients, or of post-quantum ones, but refuses a list with
#   both. pyrage takes neither the recipient (age1pq1…) nor the identity (AGE-SECRET-KEY-PQ-1…), so it cannot
#   open what age wrote for them.
# Why one guesses otherwise: recipients of a file are independent, X25519 and SSH keys mix freely, and the usual way to
#   change a key is a time with both in the list. For post-quantum keys there is no such time: copies are made twice or
#   the change is a cut. And age is one format, v1, before and after: a program that reads age files need not
#   read these.
# Seen: both kinds: exit 1, "incompatible recipients"; X25519 with SSH: exit 0; pyrage: RecipientError, IdentityError.
. "$(dirname "$0")/common/check.sh"

new_module filippo.io/age@v1.3.2
build age filippo.io/age/cmd/age
build age-keygen filippo.io/age/cmd/age-keygen
install_python pyrage==1.4.0
PATH=$SCRATCH/bin:$PATH
cd "$SCRATCH"

age-keygen -o classic.key 2>/dev/null
age-keygen -o second.key 2>/dev/null
age-keygen -pq -o quantum.key 2>/dev/null
age-keygen -pq -o quantum2.key 2>/dev/null
recipient() { age-keygen -y "$1.key"; }
encrypt() { # RECIPIENT_KEY...
    local options=()
    for key in "$@"; do options+=(--recipient "$(recipient "$key")"); done
    if echo data | age "${options[@]}" >sealed.age 2>errors; then
        echo "encrypted, $(grep -ac '^-> ' sealed.age) stanzas"
    else
        grep -o 'incompatible recipients' errors
    fi
}

expect "two classic recipients" "encrypted, 2 stanzas" "$(encrypt classic second)"
expect "two post-quantum recipients" "encrypted, 2 stanzas" "$(encrypt quantum quantum2)"
expect "first line of that file" age-encryption.org/v1 "$(head -n 1 sealed.age)"
expect "one of each" "incompatible recipients" "$(encrypt classic quantum)"

in_python() { # CLASS TEXT
    python - "$@" <<'PY'
import sys

import pyrage

try:
    getattr(pyrage.x25519, sys.argv[1]).from_str(sys.argv[2])
    print("accepted")
except (pyrage.RecipientError, pyrage.IdentityError) as error:
    print(type(error).__name__)
PY
}
expect "pyrage, classic recipient" accepted "$(in_python Recipient "$(recipient classic)")"
expect "pyrage, post-quantum recipient" RecipientError "$(in_python Recipient "$(recipient quantum)")"
expect "pyrage, post-quantum identity" IdentityError "$(in_python Identity "$(tail -n 1 quantum.key)")"
