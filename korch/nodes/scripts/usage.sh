# Words: TEMPLATE (of inspect: uid, container, process id).
# CPU time and memory of this cluster's running containers, from their cgroups: no engine is as quick, or measures the
# last moment rather than the whole life. Two looks, 0.6 s apart.
korch_usage_ids=$(timeout -k 2 20 "$korch_engine" ps -q --no-trunc --filter "label=korch.dev/cluster=$korch_cluster" 2>&1 </dev/null) || {
    echo '@korch failed'
    printf '%s\n' "$korch_usage_ids"
    echo '@korch end'
    exit 0
}
korch_usage_pids=
[ -z "$korch_usage_ids" ] ||
    korch_usage_pids=$(timeout -k 2 20 "$korch_engine" inspect --type container --format "$1" $korch_usage_ids 2>/dev/null </dev/null)

# korch_usage_of PID: a line for each figure that can be read; which files there are depends on the cgroup version.
korch_usage_of() {
    while IFS=: read -r korch_usage_number korch_usage_kinds korch_usage_path; do
        case ",$korch_usage_kinds," in
        *,cpuacct,*)
            for korch_usage_dir in cpuacct cpu,cpuacct; do
                grep -H . "/sys/fs/cgroup/$korch_usage_dir$korch_usage_path/cpuacct.usage" 2>/dev/null && break
            done
            ;;
        *,memory,*)
            grep -H . "/sys/fs/cgroup/memory$korch_usage_path/memory.usage_in_bytes" 2>/dev/null
            grep -H '^total_inactive_file ' "/sys/fs/cgroup/memory$korch_usage_path/memory.stat" 2>/dev/null
            ;;
        ,,)
            grep -H '^usage_usec ' "/sys/fs/cgroup$korch_usage_path/cpu.stat" 2>/dev/null
            grep -H . "/sys/fs/cgroup$korch_usage_path/memory.current" 2>/dev/null
            grep -H '^inactive_file ' "/sys/fs/cgroup$korch_usage_path/memory.stat" 2>/dev/null
            ;;
        esac
    done <"/proc/$1/cgroup"
}

korch_usage_look() {
    printf '%s\n' "$korch_usage_pids" | while read -r korch_usage_uid korch_usage_name korch_usage_pid; do
        [ -r "/proc/${korch_usage_pid:-0}/cgroup" ] || continue
        read -r korch_usage_up _ </proc/uptime
        echo "@korch usage $korch_usage_uid $korch_usage_name $korch_usage_up"
        korch_usage_of "$korch_usage_pid"
    done
}
korch_usage_look
[ -z "$korch_usage_pids" ] || sleep 0.6 2>/dev/null || usleep 600000 2>/dev/null || sleep 1
korch_usage_look
echo '@korch end'
