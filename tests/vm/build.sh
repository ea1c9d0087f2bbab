#!/bin/sh
# Builds a Debian with systemd, Docker and Podman, and korch's checkout with its virtual environment, in ./root, and from
# it base.ext4, vmlinuz and initrd.img. Called by image.py in its own mount and PID namespace, so that nothing stays
# mounted and nothing goes on running, whatever happens. It has no boot loader: qemu starts the kernel directly.
#   $1 mirror  $2 release  $3 folder with korch's pyproject.toml  $4... packages; korch's dependencies are in ./wheels
set -eu
mirror=$1 release=$2 project=$3
shift 3
root=$PWD/root
export DEBIAN_FRONTEND=noninteractive

in_root() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }

echo "# base system"
debootstrap --variant=minbase --include=systemd-sysv,dbus,ca-certificates "$release" "$root" "$mirror"
mount -t proc proc "$root/proc"
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d" # start no service while it is a folder
chmod 755 "$root/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$root/etc/resolv.conf"

echo "# packages"
in_root apt-get update -q
in_root apt-get install -y -q --no-install-recommends -o Dpkg::Options::=--force-unsafe-io "$@"
rm -rf "$root"/usr/sbin/policy-rc.d "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/* \
  "$root"/etc/apt/sources.list "$root"/etc/resolv.conf

echo "# korch's virtual environment"
mkdir -p "$root/root/korch/korch" "$root/mnt/wheels"
cp "$project/pyproject.toml" "$project/README.md" "$root/root/korch/"
touch "$root/root/korch/korch/__init__.py"
mount --bind wheels "$root/mnt/wheels"
in_root python3 -m venv /root/korch/.venv
in_root env PIP_NO_INDEX=1 PIP_FIND_LINKS=/mnt/wheels PIP_NO_CACHE_DIR=1 \
  /root/korch/.venv/bin/pip install -q -e '/root/korch[dev]'
umount "$root/mnt/wheels"
cp -r wheels "$root/var/lib/wheels" # for what is installed in a machine, which reaches nothing outside
printf '[global]\nno-index = true\nfind-links = /var/lib/wheels\n' > "$root/etc/pip.conf"
touch "$root/root/korch/.venv/.done"

echo "# settings"
echo vm > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 vm\n' > "$root/etc/hosts"
echo "/dev/vda / ext4 defaults,noatime 0 1" > "$root/etc/fstab"
printf '[Match]\nName=e*\n[Network]\nDHCP=ipv4\n[DHCPv4]\nClientIdentifier=mac\n' > "$root/etc/systemd/network/80-dhcp.network"
printf 'PermitRootLogin prohibit-password\nUseDNS no\n' > "$root/etc/ssh/sshd_config.d/vm.conf"
in_root useradd -m -s /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD: ALL' > "$root/etc/sudoers.d/vagrant"
for home in root home/vagrant; do
  mkdir -p "$root/$home/.ssh"
  chmod 700 "$root/$home/.ssh"
  cp id_ed25519.pub "$root/$home/.ssh/authorized_keys"
done
in_root chown -R vagrant:vagrant /home/vagrant
in_root systemctl -q enable systemd-networkd ssh docker
in_root systemctl -q mask systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
  e2scrub_reap.service fstrim.timer man-db.timer lxcfs.service docker-registry.service nftables.service serial-getty@ttyS0.service
: > "$root/etc/machine-id" # each machine makes its own at its first start
cp "$root"/etc/ssh/ssh_host_ed25519_key.pub host_key.pub
cp "$root"/boot/vmlinuz-* vmlinuz
cp "$root"/boot/initrd.img-* initrd.img
umount "$root/proc"

echo "# disk"
truncate -s 8G base.ext4
mke2fs -q -t ext4 -F -d "$root" base.ext4
rm -rf --one-file-system "$root" wheels
