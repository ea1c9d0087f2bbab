# A Docker daemon that was killed in the middle of a start no longer knows the shim that it made there, whose program may
# even run. No later start gets past it, and `rm` leaves it behind. When a shim has ended, containerd clears what it held.
# korch_end_shims ID...: of containers that do not run, as Docker says.
korch_end_shims() {
    [ "$korch_engine" = docker ] || return 0
    for korch_shim in "$@"; do
        [ "${#korch_shim}" = 64 ] || continue
        (exec 9>&-; cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' '\n' | grep -qx "$korch_shim") || continue
        for korch_shim_at in /proc/[0-9]*; do
            korch_shim_words=$(exec 9>&-; tr '\0' ' ' 2>/dev/null <"$korch_shim_at/cmdline") || continue
            case ${korch_shim_words%% *} in *containerd-shim*) ;; *) continue ;; esac
            case $korch_shim_words in *"$korch_shim"*) kill -9 "${korch_shim_at#/proc/}" 2>/dev/null ;; esac
        done
    done
}
