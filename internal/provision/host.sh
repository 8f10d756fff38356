# shellcheck shell=sh
# What is done on a Debian host that may have nothing of Conductor: root's shell
# reads this from its input, and then which of it to do. Nobody may be there to
# hear how it goes; what was begun goes on to its end all the same.
set -u
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l APT_LISTCHANGES_FRONTEND=none UCF_FORCE_CONFFOLD=1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
cd /
log=/var/log/conductor/packages.log
work=/run/conductor-packages
patience=600 # seconds that somebody else's work may take

# say tells whoever listens; a shell of its own, which dies in place of this one
# when nobody does.
say() { (printf '%s\n' "$*") 2>/dev/null || :; }

# fail CODE TEXT… ends all.
fail() {
  code=$1
  shift
  printf '%s\n' "$*" >&2
  exit "$code"
}

# installed PACKAGE, wholly
installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# missing RECOMMENDS prints the first of those alternatives of which there is none.
missing() {
  printf '%s\n' "$1" | tr ',' '\n' | sed 's/([^)]*)//g' | while read -r group; do
    first='' found=''
    for name in $(printf '%s' "$group" | tr '|' ' '); do
      [ -n "$first" ] || first=$name
      if installed "$name"; then found=$name; fi
    done
    if [ -z "$found" ]; then echo "$first"; fi
  done
}

# look VERSION RECOMMENDS
look() {
  name=$( (. /etc/os-release && printf '%s' "$PRETTY_NAME") 2>/dev/null) || name='a system without a name'
  for tool in apt-get dpkg-query; do
    command -v $tool >/dev/null || fail 9 "it runs $name, which has no $tool: install conductor, an engine and nginx there by hand"
  done
  echo "system=$name"
  echo "architecture=$(dpkg --print-architecture)"
  missing "$2" | sed 's/^/missing=/'
  installed conductor || return 0
  version=$(dpkg-query -W -f '${Version}' conductor)
  echo "version=$version"
  echo "digest=$(sha256sum </usr/bin/conductor | cut -d' ' -f1)"
  if dpkg --compare-versions "$version" gt "$1"; then echo 'newer=yes'; fi
}

# alone waits for another one: whoever began that may be gone.
alone() {
  exec 9>/run/conductor-packages.lock
  flock -n 9 && return
  say 'waiting for another conductor, which installs packages on this host'
  flock -w $patience 9 || fail 7 "another conductor has been installing packages on this host for more than $patience s"
}

# patiently COMMAND… runs it, its output into the log; while somebody else has a
# lock of apt or dpkg, again.
patiently() {
  until=$(($(date +%s) + patience)) told=''
  while :; do
    code=0
    "$@" >$work/said 2>&1 </dev/null 9>&- || code=$?
    { echo "+ $*" && cat $work/said; } >>$log
    [ $code != 0 ] || return 0
    held=$(grep -E '^E: (Could not get lock|Unable to lock|Unable to acquire)|frontend lock.*was locked' $work/said | head -1)
    [ -n "$held" ] || return $code
    [ "$(date +%s)" -lt $until ] || fail 7 "somebody else has been at this host's packages for more than $patience s: $held"
    [ -n "$told" ] || say "waiting: $held"
    told=yes
    sleep 1
  done
}

apt() {
  patiently apt-get -q -y -o DPkg::Lock::Timeout=30 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# said is what the last command said of its failure.
said() { grep -E '^(E|W|Err|dpkg: error)\b' $work/said | tail -n 6 | grep . || tail -n 6 $work/said; }

# begin makes ready: what was broken off is brought to its end first.
begin() {
  alone
  rm -rf $work
  mkdir -m 700 $work
  mkdir -p "$(dirname $log)"
  [ -z "$(dpkg --audit 2>/dev/null)" ] || say 'finishing an installation that was broken off'
  patiently dpkg --force-confdef --force-confold --configure -a || :
}

# part adds what follows to the package's file.
part() { base64 -d >>$work/conductor.deb || fail 9 "the package's file cannot be written: $(df -h $work | tail -1)"; }

# install_package installs the file, with what it recommends.
install_package() {
  deb=$work/conductor.deb
  wanted=$(missing "$(dpkg-deb -f $deb Recommends)")
  if ! apt update; then
    say "warning: apt-get update: $(grep '^[EW]:' $work/said | head -3)"
  fi
  apt -f install || say "warning: apt-get -f install: $(grep '^E:' $work/said | head -3)"
  # shellcheck disable=SC2086 # names of packages, one a line
  apt --no-install-recommends --reinstall install $wanted $deb ||
    fail 9 "apt-get cannot install" $wanted "conductor:
$(said)"
  for name in conductor $wanted; do
    installed "$name" || fail 9 "apt-get ended well, and $name is not installed:
$(said)"
  done
  rm -rf $work
}

# refresh upgrades all packages.
refresh() {
  begin
  apt update || fail 9 "apt-get update:
$(said)"
  apt --with-new-pkgs upgrade || fail 9 "apt-get upgrade:
$(said)"
  echo "packages=$(grep -E '^[0-9]+ upgraded, ' $work/said | tail -1)"
  [ ! -e /run/reboot-required ] || echo 'reboot=due'
  apt clean || :
  rm -rf $work
}
