# shellcheck shell=bash
# The hosts of script/test-package, which sources this. name and tmp are its own.
# shellcheck disable=SC2154

host=''

# h COMMAND… runs it on the host; with what is on stdin, if it reads that.
h() { docker exec -i "$host" "$@"; }

# eventually SECONDS COMMAND… waits until it succeeds.
eventually() {
  local until=$(($(now) + $1 * 1000))
  shift
  until "$@" >/dev/null 2>&1 </dev/null; do
    [ "$(now)" -lt $until ] || die "never: $*"
    sleep 0.1
  done
}

# start_host KIND begins a host: systemd, or plain.
start_host() {
  [ -z "$host" ] || docker stop -t 30 "$host" >/dev/null
  host=$name-$1
  create_host "$host" "$1" --label ct-package="$name" -v /var/lib/docker
  docker start "$host" >/dev/null
  eventually 60 up
}

# up: engine and nginx answer.
up() { h docker info && h curl -s http://127.0.0.1/; }

# clean_up takes away all hosts.
clean_up() {
  remove_hosts ct-package="$name" || return
  rm -rf "$tmp"
}

# tell_all shows what there is to know of a host on which a step failed.
tell_all() {
  [ -n "$host" ] || return 0
  echo "-- $host"
  h docker ps -a --format '{{.Names}} {{.Status}}'
  h sh -c 'systemctl --no-pager status conductor-supervise; journalctl --no-pager -n 60 -u conductor-supervise -u conductor-sandbox; tail -20 /var/log/conductor/supervise.log' 2>&1
  h sh -c 'conductor service status; conductor service history --id shop | tail -5' 2>&1
}

# ids are the containers that run, in order.
ids() { h docker ps -q --no-trunc --filter label=conductor.service=shop | sort; }

# kill_one kills the process of a container, as the kernel might, and prints which.
kill_one() {
  local id
  id=$(ids | head -1)
  # shellcheck disable=SC2016
  h sh -euc 'kill -9 "$(docker inspect -f "{{.State.Pid}}" "$1")"' - "$id"
  eventually 10 gone "$id"
  echo "$id"
}
gone() { ! ids | grep "$1" >/dev/null; }

# serves REVISION
serves() { h curl -fsS -o /dev/null -D - -H 'Host: shop.test' http://127.0.0.1/ | tr -d '\r' | grep -ix "x-revision: $1" >/dev/null; }

main_pid() { h systemctl show -P MainPID conductor-supervise; }

is_ready() {
  h systemctl is-active conductor-supervise >/dev/null
  h systemctl is-enabled conductor-supervise >/dev/null
  h systemctl show -P StatusText conductor-supervise | grep 'looks after 0 services' >/dev/null
}

unit_in_order() {
  local said
  said=$(h systemd-analyze verify conductor-supervise.service 2>&1 | grep conductor || true)
  [ -z "$said" ] || die "$said"
  h systemd-analyze security --no-pager conductor-supervise.service | grep -o 'Overall exposure.*: [0-9.]* [A-Z]*'
}

# sandbox has a shell do in the unit's sandbox what the supervisor does, and what
# it never does.
sandbox() {
  docker exec -i "$host" tee /root/sandbox.sh >/dev/null <<'SH'
set -eu
refused() { if "$@" 2>/dev/null; then echo "not refused: $*" && exit 1; fi; }
pid=$(docker inspect -f '{{.State.Pid}}' "$(docker ps -q | head -1)")
cat "/proc/$pid/net/tcp" "/proc/$pid/net/tcp6" | grep -q ' 0A '
ls -l "/proc/$(pgrep -u www-data nginx | head -1)/fd" | grep -q socket:
for dir in /etc/nginx/conf.d /etc/cron.d /var/lib/conductor /run; do touch $dir/.probe && rm $dir/.probe; done
cp -p /etc/nginx/conf.d/conductor.conf /run/candidate
echo '# the candidate' >>/run/candidate
unshare --mount sh -euc 'mount --bind /run/candidate /etc/nginx/conf.d/conductor.conf && nginx -T 2>&1 | grep -q "^# the candidate"'
refused grep -q 'the candidate' /etc/nginx/conf.d/conductor.conf
rm /run/candidate
nginx -s reload
refused touch /etc/probe
refused touch /usr/bin/probe
refused touch /root/probe
refused unshare --net true
refused hostname probe
refused mknod /run/probe b 8 0
SH
  # shellcheck disable=SC2016
  h sh -euc '
    unit=/etc/systemd/system/conductor-sandbox.service
    sed -e "s|^ExecStart=.*|ExecStart=/bin/sh /root/sandbox.sh|" -e "s/^Type=.*/Type=oneshot/" -e "s/^Restart=.*/Restart=no/" -e /^WatchdogSec/d \
      /lib/systemd/system/conductor-supervise.service >$unit
    systemctl daemon-reload
    systemctl start conductor-sandbox
    rm $unit
    systemctl daemon-reload'
  # The containers are not in the unit, so they do not end with it.
  # shellcheck disable=SC2016
  ! h sh -euc 'for c in $(docker ps -q); do cat /proc/$(docker inspect -f "{{.State.Pid}}" $c)/cgroup; done' | grep conductor-supervise ||
    die "a container is in the unit"
}

file_put_right() {
  h rm /etc/nginx/conf.d/conductor.conf
  eventually 60 h test -s /etc/nginx/conf.d/conductor.conf
  h nginx -t 2>/dev/null
  serves v2
}

cut_power() {
  docker kill "$host" >/dev/null
  reboot start "$host"
}

script_words() {
  local code=0
  h service conductor-supervise status >/dev/null
  h service conductor-supervise start >/dev/null # it runs already
  [ "$(h pgrep -xc conductor)" = 1 ] || die "there are two"
  h service conductor-supervise try-restart >/dev/null
  h service conductor-supervise restart >/dev/null
  [ "$(h pgrep -x conductor)" = "$(h cat /run/conductor-supervise.pid)" ] || die "the PID is another"
  h service conductor-supervise nonsense >/dev/null 2>&1 || code=$?
  [ $code = 3 ] || die "exit $code of a word that is none"
}

starts_again() {
  local code=0
  h service conductor-supervise status >/dev/null || code=$?
  [ $code = 3 ] || die "status says $code of what is stopped"
  h service conductor-supervise try-restart >/dev/null
  ! h pgrep -x conductor >/dev/null || die "try-restart started it"
  h service conductor-supervise start >/dev/null
  eventually 20 replaced none
}

stays_stopped_plain() {
  install 1
  ! h pgrep -x conductor >/dev/null || die "it was stopped, and runs now"
}

new_program_plain() {
  local pid
  pid=$(h pgrep -x conductor)
  install 2
  [ "$(h pgrep -x conductor)" != "$pid" ] || die "the old one runs"
  # shellcheck disable=SC2016
  h sh -euc 'test "$(readlink /proc/$(cat /run/conductor-supervise.pid)/exe)" = /usr/bin/conductor'
}

log_rotates() {
  h grep -q '"event":"created"' /var/log/conductor/supervise.log
  h logrotate -f /etc/logrotate.d/conductor
  h grep -q '"event":"created"' /var/log/conductor/supervise.log.1
  dies_and_is_replaced
  h grep -q '"event":"created"' /var/log/conductor/supervise.log
  [ "$(h stat -c %s /var/log/conductor/supervise.log)" -lt 100000 ] || die "it has a hole where the old lines were"
}
