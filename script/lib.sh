# shellcheck shell=bash
# What the scripts share. Source it: . "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2034 # its variables are for those who source it

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
root=$PWD

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
else
  bold='' dim='' red='' green='' plain=''
fi

die() {
  echo "${red}$*${plain}" >&2
  exit 1
}

# now prints the time in milliseconds.
now() { date +%s%3N; }

# seconds MS prints milliseconds as seconds.
seconds() { printf '%d.%d s' $(($1 / 1000)) $(($1 % 1000 / 100)); }

need_root() {
  [ "$(id -u)" = 0 ] || die "$0: must run as root: it installs packages and talks to Docker and nginx"
}

need_go() {
  command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
  command -v go >/dev/null || die "$0: no Go; install it from https://go.dev/dl (see go.mod for the version)"
  # Root in somebody else's clone: git refuses, and Go cannot stamp a version.
  if ! git status --short >/dev/null 2>&1; then export GOFLAGS="${GOFLAGS:-} -buildvcs=false"; fi
}

# have_package NAME: whether the Debian package is installed.
have_package() {
  [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1" 2>/dev/null)" = 'ii ' ]
}

# install_missing installs what the product and its tests need of Debian's
# packages. The machine's own nginx and cron, if they are among what is installed
# here, are neither started nor enabled: tests and demonstration run their own.
install_missing() {
  local missing=() held=() p log code=0
  # A Docker engine of another origin is as good as Debian's.
  command -v dockerd >/dev/null || missing+=(docker.io)
  command -v iptables >/dev/null || missing+=(iptables)
  command -v ip >/dev/null || missing+=(iproute2)
  command -v curl >/dev/null || missing+=(curl)
  for p in nginx libnginx-mod-http-lua lua-resty-core lua-resty-lrucache "$@"; do
    have_package "$p" || missing+=("$p")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || die "missing: ${missing[*]}; there is no apt-get here to install them with"
  echo "installing ${missing[*]}"
  for p in "${missing[@]}"; do
    case $p in nginx | cron | prometheus | haproxy | ssh) held+=("$p") ;; esac
  done
  log=$(mktemp)
  hold "${held[@]}"
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 || code=$?
  release "${held[@]}"
  [ $code = 0 ] || tail -20 "$log" >&2
  rm -f "$log"
  [ $code = 0 ] || die "apt-get could not install ${missing[*]}"
}

# hold SERVICE… keeps their packages from starting them: a unit that is masked
# is not started; where there is no systemd, policy-rc.d says no.
hold() {
  [ $# -gt 0 ] || return 0
  if [ -d /run/systemd/system ]; then
    systemctl mask "${@/%/.service}" >/dev/null 2>&1 || true
  elif [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\n# written by %s; safe to remove\nexit 101\n' "$0" >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
}

# release SERVICE… undoes hold; from now on it is for their owner to start them.
release() {
  [ $# -gt 0 ] || return 0
  if [ -d /run/systemd/system ]; then
    systemctl unmask "${@/%/.service}" >/dev/null 2>&1 || true
    systemctl disable "${@/%/.service}" >/dev/null 2>&1 || true
    return
  fi
  if grep -qs "written by $0" /usr/sbin/policy-rc.d; then
    rm -f /usr/sbin/policy-rc.d
  fi
  local s
  for s in "$@"; do update-rc.d "$s" disable >/dev/null 2>&1 || true; done
}

engine_answers() {
  curl -fsS --max-time 5 --unix-socket "${engine_socket}" http://engine/_ping >/dev/null 2>&1
}

engine_socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
engine_socket=${engine_socket#unix://}

# start_engine starts Docker unless it answers: by systemd where that is PID 1,
# else by hand, and then it stays, as a service would.
start_engine() {
  engine_answers && return 0
  echo "starting Docker"
  local log=/var/log/dockerd.log
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    setsid dockerd >>"$log" 2>&1 </dev/null &
  fi
  local i
  for ((i = 0; i < 150; i++)); do
    engine_answers && return 0
    sleep 0.2
  done
  if [ -d /run/systemd/system ]; then
    journalctl -u docker -n 20 --no-pager >&2 || true
  else
    tail -20 "$log" >&2 || true
  fi
  die "Docker does not answer at $engine_socket"
}

# Sections: each prints its name, and its time when the next one begins.
section_name='' section_began=0 section_times=''

section() {
  section_end
  section_name=$1 section_began=$(now)
  echo "${bold}== $1${plain}"
}

section_end() {
  [ -n "$section_name" ] || return 0
  local took=$(($(now) - section_began))
  section_times+=$(printf '  %-44s %10s' "$section_name" "$(seconds $took)")$'\n'
  section_name=''
}

# beside NAME COMMAND… begins a section in the background. What it prints is
# kept until its turn comes, at joined. Only one at a time.
beside_name='' beside_log='' beside_pid=''

beside() {
  beside_name=$1 beside_log=$(mktemp)
  shift
  # It has a session of its own, so that all of it can be ended.
  setsid "$@" >"$beside_log" 2>&1 </dev/null &
  beside_pid=$!
}

# joined waits for the section in the background, shows it, and returns its code.
joined() {
  local code=0
  section "$beside_name"
  wait "$beside_pid" || code=$?
  beside_pid=''
  cat "$beside_log"
  rm -f "$beside_log"
  return $code
}

# beside_end ends the section in the background, if there is one.
beside_end() {
  [ -n "$beside_pid" ] || return 0
  kill -TERM -- "-$beside_pid" 2>/dev/null || true
  wait "$beside_pid" 2>/dev/null || true
  # An engine of its own needs a moment to end with its containers: killed, it
  # leaves them and its mounts.
  local i
  for ((i = 0; i < 300; i++)); do
    kill -0 -- "-$beside_pid" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$beside_pid" 2>/dev/null || true
  beside_pid=''
  rm -f "$beside_log"
}
