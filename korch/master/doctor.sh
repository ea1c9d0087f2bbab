# Words: "PROGRAM..." SSHD(1|0). What a report does not tell: programs, cgroups, sshd's limits. Read by doctor.py.
LC_ALL=C
export LC_ALL
echo '@korch begin'
echo '@korch missing'
for korch_program in $1; do
    command -v "$korch_program" >/dev/null 2>&1 || echo "$korch_program"
done
echo '@korch cgroup'
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    printf 'v2 '
    cat /sys/fs/cgroup/cgroup.controllers
else
    printf 'v1'
    while read -r korch_name _ _ korch_enabled; do
        [ "$korch_enabled" = 1 ] && printf ' %s' "$korch_name"
    done </proc/cgroups
    echo
fi
if [ "$2" = 1 ]; then
    for korch_sshd in sshd /usr/sbin/sshd /usr/local/sbin/sshd; do
        korch_out=$("$korch_sshd" -T -C user=root,host=localhost,addr=127.0.0.1 2>/dev/null </dev/null) || continue
        echo '@korch sshd'
        printf '%s\n' "$korch_out" | grep -i -e '^maxsessions ' -e '^maxstartups ' -e '^allowtcpforwarding ' -e '^disableforwarding '
        break
    done
fi
echo '@korch end'
