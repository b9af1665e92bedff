# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
# Usage: . tools/setup/progress.sh
#
# Run the steps of a script one after the other, each with its output in a log file, and show how far it is.

# Usage: announce_steps NUMBER LOG_DIRECTORY
announce_steps() {
  steps=$1 logs=$2 count=0
}

# Usage: step NAME COMMAND…
# Show how long the command takes, and its last line: what it found or made. End the script where it fails.
step() {
  local title log begin=$SECONDS watcher status=0
  count=$((count + 1))
  printf -v title '[%d/%d] %-16s' "$count" "$steps" "$1"
  log=$logs/$count-${1// /-}.log
  : >"$log"
  watch_log "$title" "$log" &
  watcher=$!
  "${@:2}" >"$log" 2>&1 </dev/null || status=$?
  kill "$watcher" 2>/dev/null || true
  wait "$watcher" 2>/dev/null || true
  [[ ! -t 1 ]] || printf '\r\e[K'
  if ((status)); then
    printf '%s %4d s  failed\n' "$title" $((SECONDS - begin))
    report_failure "$1" "$log" "$status"
  fi
  printf '%s %4d s  %s\n' "$title" $((SECONDS - begin)) "$(tail -n 1 "$log")"
}

# Usage: watch_log TITLE LOG
# Show the last line of a log while it grows: on a terminal in place, elsewhere from time to time.
watch_log() {
  local begin=$SECONDS line
  while sleep 1 >/dev/null && kill -0 $$; do  # not beyond an interrupted script
    printf -v line '%s %4d s  %s' "$1" $((SECONDS - begin)) "$(tail -n 1 "$2" | tr -cd '\40-\176')"
    if [[ -t 1 ]]; then
      printf '\r\e[K%s' "${line:0:${COLUMNS:-80}-1}"
    elif (((SECONDS - begin) % 15 == 0)); then
      printf '%s\n' "${line:0:119}"
    fi
  done
}

# Usage: report_failure NAME LOG STATUS
# End with the error that the step printed, else with its last lines.
report_failure() {
  if grep -qE '^error: [^ ]+: ' "$2"; then
    sed -nE '/^error: [^ ]+: /,$p' "$2" >&2
    exit "$3"
  fi
  tail -n 15 "$2" | sed 's/^/  | /' >&2
  fail 3 "${0##*/}" "$1 failed, with the lines above at its end" log "$2" hint "mend that, then run $0 again"
}
