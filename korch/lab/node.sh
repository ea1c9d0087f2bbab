#!/bin/sh
# Process number 1 of a lab node. Started in fresh mount, uts, ipc, cgroup and pid namespaces by korch/lab/boot.py, with
# the node's folder as first word. Builds the node's file system, starts its engine and becomes tini over sshd.
set -eu
dir=$1 name=$2 engine=$3 lxcfs=$4 busybox=$5 disk=$6
cd "$dir"

mount --make-rprivate /
hostname "$name"

# The system's programs and settings are the host's, with the node's own changes on top.
mount --bind root root
mount -t overlay overlay -o lowerdir=/usr,upperdir=usr,workdir=usr.work root/usr
mount -t overlay overlay -o lowerdir=/etc,upperdir=etc,workdir=etc.work root/etc
mount -t overlay overlay -o lowerdir=/var/lib/dpkg,upperdir=dpkg,workdir=dpkg.work root/opt/dpkg
mount --bind local root/usr/local

mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 root/sys/fs/cgroup
  for word in $(cat root/sys/fs/cgroup/cgroup.controllers); do
    echo "+$word" > root/sys/fs/cgroup/cgroup.subtree_control || true
  done
else
  mount -t tmpfs -o mode=755,size=1M cgroup root/sys/fs/cgroup
  while IFS=: read -r _ controllers _; do
    case $controllers in
      '') folder=unified; mkdir root/sys/fs/cgroup/unified; mount -t cgroup2 cgroup2 root/sys/fs/cgroup/unified; continue ;;
      name=*) folder=${controllers#name=}; options=none,$controllers ;;
      *) folder=$controllers; options=$controllers ;;
    esac
    mkdir "root/sys/fs/cgroup/$folder"
    mount -t cgroup -o "$options" cgroup "root/sys/fs/cgroup/$folder"
    case $folder in *,*) for one in $(echo "$folder" | tr , ' '); do ln -s "$folder" "root/sys/fs/cgroup/$one"; done ;; esac
  done < /proc/self/cgroup
fi

# The node's own load, memory and uptime. lxcfs tracks the load of a group from its first read on.
for file in loadavg meminfo stat uptime cpuinfo swaps diskstats; do
  mount --bind "$lxcfs/proc/$file" "root/proc/$file"
done
cat root/proc/loadavg > /dev/null

mount -t tmpfs -o mode=755,size=1M dev root/dev
mkdir root/dev/pts root/dev/shm root/dev/net root/dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts root/dev/pts
mount -t tmpfs -o size=64M shm root/dev/shm
mount -t mqueue mqueue root/dev/mqueue
mknod -m 666 root/dev/null c 1 3
mknod -m 666 root/dev/zero c 1 5
mknod -m 666 root/dev/full c 1 7
mknod -m 666 root/dev/random c 1 8
mknod -m 666 root/dev/urandom c 1 9
mknod -m 666 root/dev/tty c 5 0
mknod -m 666 root/dev/fuse c 10 229
mknod -m 666 root/dev/net/tun c 10 200
ln -s pts/ptmx root/dev/ptmx
ln -s /proc/self/fd root/dev/fd
ln -s /proc/self/fd/0 root/dev/stdin
ln -s /proc/self/fd/1 root/dev/stdout
ln -s /proc/self/fd/2 root/dev/stderr

mount -t tmpfs -o mode=755,size=256M run root/run
mount -t tmpfs -o mode=1777,size=256M tmp root/tmp
mkdir -p root/run/sshd root/run/lock
chmod 1777 root/run/lock
if [ "$disk" = 1 ]; then mount -t ext4 -o loop disk.img root/var/lib; fi
mkdir -p root/var/lib/docker root/var/lib/containers root/var/lib/korch root/var/lib/dpkg root/var/lib/misc
mount --move root/opt/dpkg root/var/lib/dpkg

sshd_path=/usr/sbin/sshd tini_path=/usr/bin/tini
if [ "$busybox" = 1 ]; then
  # The engine's helpers stay where only the engine looks for them.
  mount --bind /usr/bin root/opt/engine/bin
  mount --bind /usr/sbin root/opt/engine/sbin
  mount --bind busybox root/usr/bin
  mount --bind busybox root/usr/sbin
  PATH=/opt/engine/fix:/opt/engine/sbin:/opt/engine/bin:/usr/sbin:/usr/bin
  sshd_path=/opt/engine/sbin/sshd tini_path=/opt/engine/bin/tini
fi

cd root
mkdir -p .old
pivot_root . .old
umount -l /.old
rmdir /.old 2> /dev/null || true
cd /

if [ "$engine" = docker ]; then
  /opt/engine/start > /var/log/docker.log 2>&1 &
fi
exec "$tini_path" -- "$sshd_path" -D -E /var/log/sshd.log
