# Functions that the check of a case may use. The runner sets SIDE (beemesh or podman), FIRST and SECOND (files), WAIT, SAID
# (a file with what every apply printed), WORKLOADS (names in Beemesh) and PODS (a regular
# expression for names in Podman).

# The containers of the case, one on each line, those that were made last first: pod, name, status.
made() {
  local format='{{.PodName}} {{.Names}} {{.Status}}' workload
  if [ "$SIDE" = beemesh ]; then
    for workload in $WORKLOADS; do podman ps -a --format "$format" --filter "label=beemesh.io/workload=$workload"; done
  else
    podman ps -a --format "$format" | grep -E "^($PODS) "
  fi
}
# The name in Podman of a container of the pod.
ctr() {
  local found
  found=$(made | while read -r pod name _; do [ "$name" != "$pod-$1" ] || echo "$name"; done | head -n1)
  [ -n "$found" ] || { echo "no container $1" >&2; return 1; }
  echo "$found"
}
# The journal has also what an init container printed that has done its work and was removed.
log() {
  local name workload
  if name=$(ctr "$1" 2>/dev/null); then podman logs "$name" 2>&1; return; fi
  [ "$SIDE" = beemesh ] || { ctr "$1"; return 1; }
  for workload in $WORKLOADS; do
    journalctl -q --no-pager -o cat "SYSLOG_IDENTIFIER=$workload-$1" "UNIT=beemesh-pod-$workload.service" + \
      "SYSLOG_IDENTIFIER=$workload-$1" "_SYSTEMD_UNIT=beemesh-pod-$workload.service" | grep . && return
  done
  ctr "$1"
}
ex() { local name; name=$(ctr "$1") && shift && podman exec "$name" "$@" 2>&1; }
insp() { local name; name=$(ctr "$1") && podman inspect --format "$2" "$name" 2>&1; }
apply() {
  if [ "$SIDE" = beemesh ]; then
    timeout 120 beemesh apply -f - --wait="${WAIT}s" <"$1" 2>&1
  else
    timeout 120 podman kube play --replace "$1" 2>&1 && sleep 2
  fi
}
# Applies the second manifest and prints what that prints.
again() {
  local code=0
  apply "$SECOND" >"$SAID.again" || code=$?
  cat "$SAID.again" >>"$SAID"
  cat "$SAID.again"
  sleep 1
  return "$code"
}
# Deletes what was applied, and keeps the data of claims.
remove() {
  if [ "$SIDE" = beemesh ]; then
    timeout 120 beemesh delete -f - --wait=90s <"$FIRST" >/dev/null
  else
    timeout 120 podman kube down "$FIRST" >/dev/null
  fi
}
# eventually SECONDS COMMAND...: repeats it until it succeeds, and prints what it printed last.
eventually() {
  local end=$((SECONDS + $1)) out
  shift
  until out=$("$@" 2>&1); do
    [ "$SECONDS" -lt "$end" ] || { echo "$out"; return 1; }
    sleep 0.3
  done
  [ -z "$out" ] || echo "$out"
}
# What every apply printed.
text() { cat "$SAID"; }
# The state of the pods, as it is told.
state() {
  if [ "$SIDE" = beemesh ]; then
    for workload in $WORKLOADS; do beemesh get workloads "$workload" 2>&1; done
  else
    made | grep -v -e '-infra '
  fi
}
