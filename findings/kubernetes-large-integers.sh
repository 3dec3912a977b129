#!/usr/bin/env bash
# k8s.io/apimachinery 0.36.3, orjson 3.13.0: integers above int64 lose digits, silently, and not in the same place.
#
# Behaviour: Kubernetes' JSON decoder for custom resources gives an int64 where the number fits and a float64 where it
#   does not, without an error: 9223372036854775809 is written back as 9223372036854776000. orjson keeps integers up to
#   2^64 - 1 exactly and turns larger ones into floats, equally silently; Python's json keeps them all.
# Why one guesses otherwise: the decoder's purpose is to preserve integers (its function says so), and a decoder that
#   cannot hold a number would be expected to refuse it; orjson's documentation speaks of a supported 64-bit range, which
#   reads like an error beyond it, and refuses such integers when it writes. So a manifest and the object that the cluster
#   holds can differ in a field nobody changed, and two different integers can compare equal.
# Seen: Kubernetes 9223372036854775807 exact, …809 as 9223372036854776000; orjson 18446744073709551615 exact,
#   18446744073709551616 and …617 the same float; orjson.dumps of it TypeError.
. "$(dirname "$0")/common/check.sh"

new_module k8s.io/apimachinery@v0.36.3
cat >"$SCRATCH/module/main.go" <<'GO'
package main

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/util/json"
)

func main() {
	var object map[string]any
	if err := json.Unmarshal([]byte(`{"limit":`+os.Args[1]+`}`), &object); err != nil {
		fmt.Print("refused")
		return
	}
	written, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%T %s", object["limit"], written)
}
GO
build roundtrip .
install_python orjson==3.13.0

roundtrip=$SCRATCH/bin/roundtrip
expect "Kubernetes, 2^63 - 1" 'int64 {"limit":9223372036854775807}' "$("$roundtrip" 9223372036854775807)"
expect "Kubernetes, 2^63 + 1" 'float64 {"limit":9223372036854776000}' "$("$roundtrip" 9223372036854775809)"

evaluate() { python -c "import json, orjson; print($1)"; }
expect "orjson, 2^63 + 1" 9223372036854775809 "$(evaluate 'orjson.loads("9223372036854775809")')"
expect "orjson, 2^64 - 1" 18446744073709551615 "$(evaluate 'orjson.loads("18446744073709551615")')"
expect "orjson, 2^64" 1.8446744073709552e+19 "$(evaluate 'orjson.loads("18446744073709551616")')"
equal() { evaluate "$1.loads('18446744073709551616') == $1.loads('18446744073709551617')"; }
expect "orjson, 2^64 == 2^64 + 1" True "$(equal orjson)"
expect "json, 2^64 == 2^64 + 1" False "$(equal json)"
dumped=$(python -c '
import orjson
try:
    orjson.dumps(2**64)
    print("written")
except TypeError:
    print("TypeError")')
expect "orjson writing 2^64" TypeError "$dumped"
