#!/usr/bin/env bash
# robfig/cron 3.0.1 (Kubernetes 1.36 CronJobs), cronsim 2.8, croniter 7.0.0: `*/2` is a star to one of them only.
#
# Behaviour: a day-of-month and a day-of-week that are both restricted are joined by "or"; with a star in one of them by
#   "and". Whether `*/2` counts as a star differs: cronsim, which follows Debian's cron, looks at the first character
#   (star), robfig/cron drops the mark as soon as there is a step (no star), and so does croniter. `1-31/2` is read
#   alike by all three.
# Why one guesses otherwise: each library calls the five fields standard cron, `*/2` and `1-31/2` mean the same
#   days in a field alone, and no library refuses the expression or warns. A watcher that computes when the next backup
#   is due with one library, beside a CronJob that goes by another, expects different nights.
# Seen, from 26 March 2026, `0 3 */2 * 1`: robfig/cron and croniter 27, 29, 30, 31 March; cronsim 13 and 27 April,
#   11 and 25 May.
. "$(dirname "$0")/common/check.sh"

new_module github.com/robfig/cron/v3@v3.0.1
cat >"$SCRATCH/module/main.go" <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	"github.com/robfig/cron/v3"
)

func main() {
	schedule, err := cron.ParseStandard(os.Args[1])
	if err != nil {
		panic(err)
	}
	at := time.Date(2026, 3, 26, 0, 0, 0, 0, time.UTC)
	for range 4 {
		at = schedule.Next(at)
		fmt.Print(at.Format("01-02 "))
	}
}
GO
build robfig .
install_python cronsim==2.8 croniter==7.0.0

in_python() { # LIBRARY EXPRESSION
    python - "$@" <<'PY'
import sys
from datetime import UTC, datetime

from croniter import croniter
from cronsim import CronSim

library, expression = sys.argv[1:]
start = datetime(2026, 3, 26, tzinfo=UTC)
times = CronSim(expression, start) if library == "cronsim" else croniter(expression, start, ret_type=datetime)
print("".join(next(times).strftime("%m-%d ") for _ in range(4)))
PY
}

joined_by_or="03-27 03-29 03-30 03-31 "
expect "robfig/cron, */2 and Monday" "$joined_by_or" "$("$SCRATCH/bin/robfig" "0 3 */2 * 1")"
expect "croniter, */2 and Monday" "$joined_by_or" "$(in_python croniter "0 3 */2 * 1")"
expect "cronsim, */2 and Monday" "04-13 04-27 05-11 05-25 " "$(in_python cronsim "0 3 */2 * 1")"
for library in robfig croniter cronsim; do
    case $library in
    robfig) seen=$("$SCRATCH/bin/robfig" "0 3 1-31/2 * 1") ;;
    *) seen=$(in_python "$library" "0 3 1-31/2 * 1") ;;
    esac
    expect "$library, 1-31/2 and Monday" "$joined_by_or" "$seen"
done
