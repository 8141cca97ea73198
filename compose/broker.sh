#!/bin/bash
# Starts one broker of compose.yaml: formats its disk once, with the users that `rk setup compose files` chose, and runs it.
# Uses nothing of the image but bash, java and /opt/kafka/libs, so every image that has these will do.
set -euo pipefail

kafka() { # MAIN-CLASS [ARGUMENT…]
  # shellcheck disable=SC2086
  exec java ${KAFKA_HEAP_OPTS:-} -XX:+UseSerialGC -XX:TieredStopAtLevel=${KAFKA_JIT:-4} \
    -Dlog4j2.configurationFile=/log4j2.properties -cp '/opt/kafka/libs/*' "$@"
}

if [ ! -e /rk/data/meta.properties ]; then
  users=()
  while read -r user; do users+=(--add-scram "$user"); done </rk/users
  (kafka kafka.tools.StorageTool format --cluster-id "$(cat /rk/cluster)" --config /rk/node.properties "${users[@]}")
fi
kafka kafka.Kafka /rk/node.properties
