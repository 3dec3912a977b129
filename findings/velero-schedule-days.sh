#!/usr/bin/env bash
# Velero 1.18.2 and 1.18.3: a patch release changed on which days a Schedule is due, without a change to the Schedule.
#
# Behaviour: with both day fields set, `0 3 13 * 5`, 1.18.2 backs up on each 13th and on each Friday, as
#   crontab(5) has it; 1.18.3 only on Fridays that are a 13th, up to 14 months apart. Between the two Velero went from
#   robfig/cron to netresearch/go-cron, whose ParseStandard joins the two fields by "and". It also accepts what the
#   other refuses, such as 7 for Sunday. go-cron documents the change; who runs Velero has no reason to read that.
# Why one guesses otherwise: "or" is what crontab(5) says and what Kubernetes' CronJob does; the call is
#   `cron.ParseStandard(…)` before and after, and nothing is refused. `0 3 1,15 * 0` falls from six backups a month to a
#   few a year, while each of them expires after 30 days by default.
# Seen, after 26 March 2026, `0 3 13 * 5`: 1.18.2 on 27 March, 3, 10 and 13 April 2026; 1.18.3 on 13 November 2026,
#   13 August 2027, 13 October 2028, 13 April 2029. `0 3 1,15 * 0`: 1.18.2 on 29 March, 1, 5 and 12 April; 1.18.3 on 1 and
#   15 November 2026, 1 and 15 August 2027. `0 3 * * 7`: 1.18.2 refused, 1.18.3 Sundays. The script runs the
#   library at the version in Velero's go.mod, by the call in Velero's controller. A server of 1.18.3 with a Kubernetes
#   1.36.3 API server agreed on 28 November 2026: `0 3 1,15 * 0` Enabled, nextRunTime 1 August 2027 in its debug log.
. "$(dirname "$0")/common/check.sh"

velero=github.com/vmware-tanzu/velero
source_of() { # VERSION: Velero's source, read only, in the module cache
    go mod download -json "$velero@v$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}
library_of() { # SOURCE: the cron package that the controller of Schedules imports, and the version in its go.mod
    local path
    path=$(sed -n 's/^\tcron "\(.*\)"$/\1/p; s/^\t"\(.*cron.*\)"$/\1/p' "$1/pkg/controller/schedule_controller.go")
    echo "$path $(awk -v path="$path" '$1 == path { print $2 }' "$1/go.mod")"
}
cat >"$SCRATCH/main.go" <<'GO'
package main

import (
	"fmt"
	"os"
	"time"

	cron "LIBRARY"
)

func main() {
	schedule, err := cron.ParseStandard(os.Args[1])
	if err != nil {
		fmt.Print("refused")
		return
	}
	at := time.Date(2026, 3, 26, 0, 0, 0, 0, time.UTC)
	for range 4 {
		at = schedule.Next(at)
		fmt.Print(at.Format("2006-01-02 "))
	}
}
GO
prepare() { # VERSION LIBRARY: $SCRATCH/bin/VERSION, with the library of that Velero
    local source library
    source=$(source_of "$1")
    library=$(library_of "$source")
    expect "cron of Velero $1" "$2" "$library"
    expect "its call there" 1 \
        "$(grep -c 'cron.ParseStandard(itm.Spec.Schedule)' "$source/pkg/controller/schedule_controller.go")"
    rm -rf "$SCRATCH/module"
    new_module "${library/ /@}"
    sed "s|LIBRARY|${library% *}|" "$SCRATCH/main.go" >"$SCRATCH/module/main.go"
    build "$1" .
}
prepare 1.18.2 "github.com/robfig/cron/v3 v3.0.1"
prepare 1.18.3 "github.com/netresearch/go-cron v0.15.0"

days() { "$SCRATCH/bin/$1" "$2"; }
expect "1.18.2, the 13th with Friday" "2026-03-27 2026-04-03 2026-04-10 2026-04-13 " "$(days 1.18.2 "0 3 13 * 5")"
expect "1.18.3, the 13th with Friday" "2026-11-13 2027-08-13 2028-10-13 2029-04-13 " "$(days 1.18.3 "0 3 13 * 5")"
expect "1.18.2, the 1st and 15th with Sunday" "2026-03-29 2026-04-01 2026-04-05 2026-04-12 " "$(days 1.18.2 "0 3 1,15 * 0")"
expect "1.18.3, the 1st and 15th with Sunday" "2026-11-01 2026-11-15 2027-08-01 2027-08-15 " "$(days 1.18.3 "0 3 1,15 * 0")"
expect "1.18.2, day 7" refused "$(days 1.18.2 "0 3 * * 7")"
expect "1.18.3, day 7" "2026-03-29 2026-04-05 2026-04-12 2026-04-19 " "$(days 1.18.3 "0 3 * * 7")"
