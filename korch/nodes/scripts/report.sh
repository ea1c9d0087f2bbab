# Words: DOCKER-TEMPLATE PODMAN-TEMPLATE LIST-TEMPLATE INVENTORY(1|0) MEASURE(1|0) DOCTOR(1|0) ENGINES("docker podman")
# KNOWN("" = ask; what the one engine named answered lately about itself).
# One round trip, few programs.
korch_template=$1 korch_podman=$2 korch_list=$3 korch_inventory=$4 korch_measure=$5 korch_doctor=$6 korch_engines=$7
korch_known=$8
read -r korch_up _ </proc/uptime
echo "@korch began $korch_up"
echo '@korch facts'
# Every line with its file's name before it: one program reads them all.
grep -v -e '^intr' -e '^softirq' -e '^ctxt' /dev/null /proc/loadavg /proc/stat /proc/uptime /proc/meminfo \
    /proc/pressure/cpu /proc/pressure/memory /proc/pressure/io /etc/os-release /proc/net/route /proc/net/fib_trie \
    /proc/net/if_inet6 /proc/sys/kernel/hostname /proc/sys/kernel/osrelease /proc/sys/kernel/random/boot_id \
    /etc/machine-id 2>/dev/null
if [ "$korch_measure" = 1 ]; then
    sleep 0.6 2>/dev/null || usleep 600000 2>/dev/null || sleep 1
    echo '@korch again'
    grep -e '^cpu' /dev/null /proc/stat
fi
if [ "$korch_doctor" = 1 ]; then # the kernel walks all of its sockets for this: more work than the rest of a look
    echo '@korch listening'
    grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null
fi
echo "@korch machine $(uname -m) $korch_user ${USER:-${LOGNAME:-}}"

# The first engine that answers is taken; its answers are gathered side by side. Where one has the cluster's containers,
# no other is asked while that one is installed, even if it does not answer.
korch_recorded=
[ ! -f "$korch_dir/engine" ] || read -r korch_recorded <"$korch_dir/engine"
case $korch_engines in
*' '*) [ -z "$korch_recorded" ] || ! command -v "$korch_recorded" >/dev/null 2>&1 || korch_engines=$korch_recorded ;;
esac
korch_answered=
for korch_engine in $korch_engines; do
    command -v "$korch_engine" >/dev/null 2>&1 || continue
    echo "@korch try $korch_engine"
    [ -n "$korch_tmp" ] || korch_tmp=$(mktemp -d /dev/shm/korch.XXXXXX 2>/dev/null || mktemp -d /run/korch.XXXXXX 2>/dev/null ||
        mktemp -d /tmp/korch.XXXXXX)
    [ -n "$korch_tmp" ] || korch_refuse 78 state 'no folder for temporary files can be made'
    rm -f "$korch_tmp"/*
    if [ "$korch_engine" = podman ]; then
        [ "$korch_user" = 0 ] || {
            echo 'rootless'
            continue
        }
        korch_template=$korch_podman
    fi
    if [ -n "$korch_known" ]; then
        printf '%s\n' "$korch_known" >"$korch_tmp/info"
        : >"$korch_tmp/errors"
    elif [ "$korch_engine" = podman ]; then
        timeout -k 2 20 podman --version >"$korch_tmp/info" 2>"$korch_tmp/errors"
    else
        timeout -k 2 20 docker info --format '{{.ServerVersion}}|{{.DockerRootDir}}|{{.Architecture}}|{{json .SecurityOptions}}' \
            >"$korch_tmp/info" 2>"$korch_tmp/errors" &
    fi
    {
        korch_look_containers "$korch_template" >"$korch_tmp/containers" 2>&1
        echo "$?" >"$korch_tmp/status"
    } &
    if [ "$korch_inventory" = 1 ]; then
        timeout -k 2 20 "$korch_engine" images --no-trunc --digests --format "$korch_list" >"$korch_tmp/images" 2>/dev/null &
        timeout -k 2 20 "$korch_engine" volume ls -q --filter name=korch_ >"$korch_tmp/volumes" 2>/dev/null &
    fi
    wait
    cat "$korch_tmp/info" "$korch_tmp/errors"
    # Podman can pretend to be Docker; it is then asked by its own name.
    korch_value=
    read -r korch_value <"$korch_tmp/info"
    [ -n "$korch_value" ] || ! grep -q -i -e "can't evaluate field" -e podman "$korch_tmp/errors" || continue
    read -r korch_status <"$korch_tmp/status"
    if [ "$korch_status" != 0 ]; then
        cat "$korch_tmp/containers"
        continue
    fi
    korch_answered=$korch_engine
    echo "@korch engine $korch_engine"
    cat "$korch_tmp/info"
    echo '@korch containers'
    cat "$korch_tmp/containers"
    if [ "$korch_inventory" = 1 ]; then
        echo '@korch images'
        head -n 300 "$korch_tmp/images"
        echo '@korch volumes'
        cat "$korch_tmp/volumes"
    fi
    break
done
if [ "$korch_user" != 0 ] && { [ -z "$korch_answered" ] || [ "$korch_doctor" = 1 ]; }; then
    sudo -n true >/dev/null 2>&1 && echo '@korch sudo yes' || echo '@korch sudo no'
fi

korch_data=/var/lib
case $korch_answered in
docker)
    IFS='|' read -r _ korch_data _ <"$korch_tmp/info"
    ;;
podman)
    korch_data=/var/lib/containers/storage
    while read -r korch_key _ korch_value; do
        [ "$korch_key" = graphroot ] && korch_value=${korch_value#\"} && korch_data=${korch_value%\"}
    done 2>/dev/null </etc/containers/storage.conf
    ;;
esac
[ -d "$korch_data" ] || korch_data=/var/lib
echo "@korch disk $korch_data"
df -Pk "$korch_data" 2>/dev/null
echo "@korch state $korch_root"
for korch_file in "$korch_root"/claims/* /var/lib/korch/claims/*; do
    [ -f "$korch_file" ] || continue
    read -r korch_value <"$korch_file"
    echo "claim ${korch_file##*/} $korch_value"
done
[ -f "$korch_root/machine" ] && read -r korch_value <"$korch_root/machine" && echo "machine $korch_value"
[ -f "$korch_dir/epoch" ] && read -r korch_value <"$korch_dir/epoch" && echo "epoch $korch_value"
read -r korch_up _ </proc/uptime
echo "@korch ended $korch_up $(date +%s.%N)"
echo '@korch end'
