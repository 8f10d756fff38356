# shellcheck shell=bash
# Hosts on this machine, for script/fleet and script/test-package, which source
# this after lib.sh. A host is a container that boots like a Debian server: systemd
# is PID 1, with sshd, an engine, an nginx and a network of its own.

# What debootstrap made is kept here, by the digest of how it was made.
host_cache=/var/cache/conductor-test
host_image='' # set by make_host_image

# host_root makes the root of a host in the folder.
host_root() {
  local release=bookworm from root=$1
  from=$(apt-get indextargets --format "\$(REPO_URI) \$(CODENAME)" 'Created-By: Packages' 2>/dev/null | awk "\$2 == \"$release\" { print \$1; exit }")
  debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,docker.io,iptables,nginx,libnginx-mod-http-lua,lua-resty-core,lua-resty-lrucache,haproxy,iproute2,procps,ca-certificates,curl,cron,logrotate,man-db,python3 \
    $release "$root" ${from:+"$from"} || return
  chroot "$root" sh -euc '
    apt-get clean
    rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/locale/* /var/lib/man-db/auto-update
    rm -f /etc/ssh/ssh_host_* # each host has its own
    : >/etc/machine-id
    rm -f /var/lib/dbus/machine-id
    systemctl disable haproxy
    systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer man-db.timer
    systemctl mask dev-hugepages.mount sys-fs-fuse-connections.mount e2scrub_reap.service
    useradd --create-home --shell /bin/bash deploy
    echo "deploy ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/deploy
    printf "PasswordAuthentication no\nUseDNS no\n" >/etc/ssh/sshd_config.d/host.conf'
}

# bare_root makes the root of a host that has sshd and sudo and nothing of ours,
# in the folder. Its own source of packages is a folder with all that a host gets
# later, so that what is installed there is the same each time.
bare_root() {
  local release=bookworm from root=$1 more=docker.io,nginx,libnginx-mod-http-lua,lua-resty-core,lua-resty-lrucache,cron
  local base=systemd,systemd-sysv,dbus,libpam-systemd,openssh-server,sudo,iproute2,procps,curl
  from=$(apt-get indextargets --format "\$(REPO_URI) \$(CODENAME)" 'Created-By: Packages' 2>/dev/null | awk "\$2 == \"$release\" { print \$1; exit }")
  rm -rf "$root.all"
  debootstrap --variant=minbase --download-only --include=$base,$more $release "$root.all" ${from:+"$from"} || return
  debootstrap --variant=minbase --include=$base --cache-dir="$root.all/var/cache/apt/archives" $release "$root" ${from:+"$from"} || return
  mkdir -p "$root/srv/packages" || return
  mv "$root.all"/var/cache/apt/archives/*.deb "$root/srv/packages/" || return
  rm -rf "$root.all"
  (cd "$root/srv/packages" && dpkg-scanpackages --multiversion . >Packages) || return
  echo 'deb [trusted=yes] file:/srv/packages ./' >"$root/etc/apt/sources.list"
  chroot "$root" sh -euc '
    apt-get clean
    rm -rf /var/lib/apt/lists/* /usr/share/doc/* /usr/share/locale/*
    rm -f /etc/ssh/ssh_host_* # each host has its own
    : >/etc/machine-id
    rm -f /var/lib/dbus/machine-id
    systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer
    systemctl mask dev-hugepages.mount sys-fs-fuse-connections.mount e2scrub_reap.service
    useradd --create-home --shell /bin/bash deploy
    echo "deploy ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/deploy
    printf "PasswordAuthentication no\nUseDNS no\n" >/etc/ssh/sshd_config.d/host.conf'
}

# make_host_image makes the image of a host, unless it is there or in the cache.
# make_bare_image is the same for one that has nothing of ours.
make_host_image() { make_image conductor-host '' host_root; }
make_bare_image() { make_image conductor-bare bare- bare_root; }

# make_image REPOSITORY PREFIX RECIPE sets host_image. The prefix is of its archive
# in the cache.
make_image() {
  local repository=$1 prefix=$2 recipe=$3 digest made code=0
  digest=$(declare -f "$recipe" | sha256sum | cut -c1-12)
  host_image=$repository:$digest made=$host_cache/$prefix$digest.tar.gz
  if docker image inspect "$host_image" >/dev/null 2>&1; then return; fi
  mkdir -p "$host_cache"
  { # one at a time; who waited finds it made
    flock 9
    if ! docker image inspect "$host_image" >/dev/null 2>&1; then
      [ -e "$made" ] || bootstrap "$repository" "$prefix" "$recipe" "$made" || code=$?
      [ $code != 0 ] || docker import "$made" "$host_image" >/dev/null || code=$?
    fi
  } 9>"$host_cache/lock"
  [ $code = 0 ] || die "no image of a host: see $host_cache/log"
}

# bootstrap makes the archive, and throws those of other recipes away.
bootstrap() {
  local repository=$1 prefix=$2 recipe=$3 made=$4 root=$host_cache/root code=0
  rm -rf "$root" "$root.all" "$host_cache/$prefix"????????????.tar.gz
  docker images -q "$repository" | xargs -r docker rmi >/dev/null 2>&1 || true # but those in use
  "$recipe" "$root" >"$host_cache/log" 2>&1 && tar -C "$root" -c . | gzip -1 >"$made.part" && mv "$made.part" "$made" || code=$?
  rm -rf "$root" "$root.all"
  return $code
}

# create_host NAME KIND [OPTION…] makes a host, that boots when it is started.
# KIND is systemd, or plain for one without it. Needs make_host_image.
create_host() {
  local name=$1 kind=$2 c options=() boot
  shift 2
  for c in SYS_ADMIN NET_ADMIN NET_RAW SYS_PTRACE SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP DAC_READ_SEARCH SYS_NICE SYS_BOOT SYSLOG IPC_LOCK; do
    options+=(--cap-add "$c")
  done
  # Its control groups are below its own, and it cannot have the kernel make new
  # hierarchies: one that is left mounted nowhere would keep this machine's engine
  # from hearing of containers without memory. And who boots has a new boot ID.
  # shellcheck disable=SC2016
  boot='for m in $(awk "\$3 ~ /^cgroup/ { print \$2 }" /proc/mounts); do mount -o remount,bind,rw "$m"; done
    cat /proc/sys/kernel/random/uuid >/run/boot && mount --bind /run/boot /proc/sys/kernel/random/boot_id
    '
  case $kind in
  systemd)
    # The supervisor's sandbox has a /proc of its own, and is to see the same boot.
    boot+='mkdir -p /run/systemd/system/conductor-supervise.service.d
      printf "[Service]\nBindReadOnlyPaths=/run/boot:/proc/sys/kernel/random/boot_id\n" >/run/systemd/system/conductor-supervise.service.d/boot.conf
      exec /lib/systemd/systemd'
    # Or all would be the same machine, by what the hardware says.
    options+=(-e container=docker -e container_uuid="$(cat /proc/sys/kernel/random/uuid)" --stop-signal SIGRTMIN+3)
    ;;
  plain)
    # It has a runlevel, as with sysvinit.
    boot+='printf "#!/bin/sh\necho N 2\n" >/root/runlevel && chmod 755 /root/runlevel && ln -sf /root/runlevel /sbin/runlevel
      service nginx start; dockerd >/var/log/dockerd.log 2>&1 & exec sleep infinity'
    options+=(--init)
    ;;
  esac
  docker create --name "$name" --cgroupns private --tmpfs /run --tmpfs /run/lock --tmpfs /tmp \
    --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
    "${options[@]}" "$@" "$host_image" sh -c "$boot" >/dev/null
}

# remove_hosts LABEL=VALUE takes away the hosts with that label, and what they
# alone have: volumes without a name, control groups.
remove_hosts() {
  docker ps -aq --filter "label=$1" | xargs -r docker rm -f -v >/dev/null
}
