#!/usr/bin/env bash
# compose/demo.sh up|down: `make up` and `make down` call it. up shows how the command line gets in, and what the jobs wrote.
set -euo pipefail
cd "$(dirname "$0")/.."

compose() { ${COMPOSE:-docker-compose} --file compose/compose.yaml "$@"; }
access=compose/.access

case ${1:-} in
  up)
    if [ -z "${RK_IMAGE:-}" ] && ! docker image inspect remoting-kafka:local remoting-kafka:local-agent >/dev/null 2>&1; then
      compose/images.sh local
    fi
    COMPOSE_PROFILES='' compose up -d
    # Whoever can't have its image has all else.
    case ",${COMPOSE_PROFILES:-}," in *,ui,*) compose up -d --no-deps ui || ui=missing ;; esac
    controller=$(compose ps -q controller)
    mkdir -p $access
    docker cp "$controller:/rk/ca.pem" $access/ca.pem >/dev/null
    docker cp "$controller:/rk/api.token" $access/api.token >/dev/null
    # What a compose file calls done is started: the jobs run a few seconds.
    docker wait "$(compose ps -a -q hello 2>/dev/null || compose ps -q hello)" "$(compose ps -a -q ping 2>/dev/null || compose ps -q ping)" >/dev/null
    for job in hello ping; do compose logs --no-color $job; done
    compose exec -T controller /usr/bin/rk agents ls
    cat <<END

The controller's command line:   ${COMPOSE:-docker-compose} -f compose/compose.yaml -p ${COMPOSE_PROJECT_NAME:-rk} exec controller /usr/bin/rk agents ls
From this machine:               rk agents ls --api https://127.0.0.1:${RK_PORT:-7480} --api-ca $access/ca.pem --api-token file:$access/api.token
More agents:                     ${COMPOSE:-docker-compose} -f compose/compose.yaml -p ${COMPOSE_PROJECT_NAME:-rk} up -d --scale agent=10
END
    case "${ui:-},${COMPOSE_PROFILES:-}," in
      missing,*) echo "What is in Kafka:                the web page was not started; UI_IMAGE names its image" ;;
      *,ui,*) echo "What is in Kafka:                http://localhost:${UI_PORT:-9000}" ;;
    esac
    ;;
  down)
    COMPOSE_PROFILES=ui compose down -v --remove-orphans
    rm -rf $access
    ;;
  *) echo "compose/demo.sh: up or down?" >&2; exit 64 ;;
esac
