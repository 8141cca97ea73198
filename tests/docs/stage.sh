# Where the commands of one page run: process ids, network and files of its own. What is written to the machine's
# directories is written beside them, and goes with the last process.
# Sourced before a page's steps; the program's file is in $PROGRAM. What the page's set-up may use stands at the end.

set -u
exec 3>&1
shown=$(printf '\036')

broken() { printf 'docs stage: %s\n' "$*" >&3; exit 1; }

mount -t tmpfs -o mode=755 tmpfs /mnt || broken "cannot mount: run it as root, in a container with CAP_SYS_ADMIN"
mkdir -p /mnt/{bin,page,logs,home,tmp,layers,stage}
touch /mnt/bin/rk && mount --bind "$PROGRAM" /mnt/bin/rk || broken "cannot show $PROGRAM"
for dir in etc usr var srv opt; do
  mkdir -p /mnt/layers/$dir/{up,work} /$dir
  mount -t overlay -o lowerdir=/$dir,upperdir=/mnt/layers/$dir/up,workdir=/mnt/layers/$dir/work overlay /$dir ||
    broken "cannot lay a layer over /$dir"
done
chmod 1777 /mnt/tmp && mount --bind /mnt/tmp /tmp
rm -rf /etc/rk /var/lib/rk /etc/kafka
ip link set lo up || broken "the loopback address cannot be set up"
printf '127.0.0.1 localhost\n127.0.0.1 kafka1 kafka2 kafka3\n' > /etc/hosts
mkdir -p /etc/ssl && umask 022
export PATH=/mnt/bin:$PATH HOME=/mnt/home USER=root LANG=C.UTF-8
cd /mnt/page || exit 1

servers=()

# within SECONDS COMMAND…: until it succeeds.
within() {
  local until=$((SECONDS + $1)); shift
  until "$@" >/mnt/said.within 2>&1; do
    if [ $SECONDS -ge $until ]; then echo "not in time: $*"; cat /mnt/said.within; return 1; fi
    sleep 0.1
  done
}

finish() {
  for log in /mnt/logs/*; do [ -s "$log" ] && { printf -- '--- %s\n' "$log"; tail -n 15 "$log"; } >&3; done
  exit 1
}

# step NUMBER CODE COMMAND
step() {
  printf '%sbegin %s\n' "$shown" "$1" >&3
  eval "$3" >/mnt/said 2>&1 </dev/null
  local code=$?
  cat /mnt/said >&3
  printf '%send %s %s\n' "$shown" "$1" "$code" >&3
  [ "$code" = "$2" ] || finish
}

# serve NUMBER COMMAND: one that stays until it is told to go.
serve() {
  printf '%sbegin %s\n' "$shown" "$1" >&3
  local log=/mnt/logs/$1.log code=0
  { eval "$2"; } >"$log" 2>&1 </dev/null &
  servers+=("$!")
  case $2 in
    'rk controller run'*) within 30 rk status --health;;
    'rk agent run'*) within 30 grep -q ' online, version ' "$log";;
    'rk broker'*) within 30 grep -q "broker at" "$log";;
    *) within 30 test -s "$log";;
  esac || code=$?
  cat "$log" >&3
  printf '%send %s %s\n' "$shown" "$1" "$code" >&3
  [ "$code" = 0 ] || finish
}

# At the end of a page: what was to stay is there, or ended well.
stayed() {
  local pid
  for pid in "${servers[@]}"; do
    kill -0 "$pid" 2>/dev/null || wait "$pid" || { printf 'a command that should stay ended with %s\n' $? >&3; finish; }
  done
  printf '%swhole\n' "$shown" >&3
  exit 0
}

# ---- for set-ups --------------------------------------------------------------------------------

# A broker at kafka1:9093 with TLS and SCRAM. Users: admin, controller, agent, each with a password in /etc/kafka.
# What it is given beside are flags of `rk broker`.
kafka() {
  rk certs init --out /etc/kafka && rk certs broker kafka1 --san kafka1,kafka2,kafka3,127.0.0.1 --out /etc/kafka || return
  local user
  for user in admin controller agent; do
    (umask 077; echo "$user-secret" > /etc/kafka/$user.password; echo "$user:$user-secret" >> /etc/kafka/users)
    cat > /etc/kafka/$user.properties <<END
security.protocol=SASL_SSL
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username="$user" password="$user-secret";
ssl.truststore.type=PEM
ssl.truststore.location=/etc/kafka/ca.pem
END
    chmod 600 /etc/kafka/$user.properties
  done
  rk broker --listen 127.0.0.1:9093 --advertise kafka1:9093 --data /mnt/stage/broker --listen-cert /etc/kafka/kafka1.pem \
    --listen-key /etc/kafka/kafka1.key --users /etc/kafka/users "$@" >/mnt/logs/broker.log 2>&1 </dev/null &
  servers+=("$!")
  within 20 bash -c '</dev/tcp/127.0.0.1/9093'
}

# A controller on it, with these flags.
controller() {
  rk controller run --brokers kafka1:9093 --command-config /etc/kafka/controller.properties "$@" \
    >/mnt/logs/controller.log 2>&1 </dev/null &
  controller=$!
  within 20 rk status --health
}

# agent NAME [FLAG…]: an agent, in a work directory of its own: $work.
agent() {
  local name=$1; shift
  work=/mnt/stage/work-$name
  mkdir -p "$work"
  [ -e "/mnt/stage/$name.credential" ] || rk agents add "$name" --out "/mnt/stage/$name.credential" || return
  rk agent run --brokers kafka1:9093 --command-config /etc/kafka/agent.properties --data "/mnt/stage/$name" \
    --credential "file:/mnt/stage/$name.credential" --work "$work" "$@" >"/mnt/logs/$name.log" 2>&1 </dev/null &
  agent=$!
  within 20 grep -q ' online, version ' "/mnt/logs/$name.log"
}

# After a page has ended a server on purpose: waits until one has gone, and asks no more that it stays.
gone() {
  local until=$((SECONDS + 10)) left pid
  while [ $SECONDS -lt $until ]; do
    left=()
    for pid in "${servers[@]}"; do kill -0 "$pid" 2>/dev/null && left+=("$pid"); done
    if [ ${#left[@]} -lt ${#servers[@]} ]; then servers=("${left[@]}"); return 0; fi
    sleep 0.1
  done
  echo "all servers are there"
  return 1
}
