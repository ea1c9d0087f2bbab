# One lock a machine, on file descriptor 9: shared while acting under the standing epoch, exclusive to change claim or
# epoch. The kernel lets go of it when this shell ends, however it ends: programs are started with 9>&-, and in a $(...)
# the first word is `exec 9>&-`, as that shell outlives this one when this one is killed.
# A busybox without flock takes tickets instead (Lamport's bakery): files named by number and by process, so that a
# ticket of a process that is gone can be taken away by anyone without harm.
korch_open_lock() {
    if ! [ -w "$korch_root/lock" ]; then
        { mkdir -p "$korch_root" && chmod 755 "$korch_root" && : >>"$korch_root/lock"; } 2>/dev/null ||
            korch_refuse 78 state "cannot write to $korch_root: $(mkdir -p "$korch_root" 2>&1; : 2>&1 >>"$korch_root/lock")"
    fi
    exec 9>>"$korch_root/lock"
    command -v flock >/dev/null 2>&1 && korch_flock=1 || korch_flock=
}

# korch_lock -s|-x
korch_lock() {
    if [ -n "$korch_flock" ]; then
        flock "$1" 9 || korch_refuse 78 state "cannot lock $korch_root/lock"
    elif [ -z "$korch_ticket" ]; then
        korch_take_ticket
    fi
}

korch_unlock() {
    exec 9>&-
    [ -z "$korch_ticket" ] || rm -f "$korch_ticket"
    korch_ticket=
}

# korch_started PID: when the process started, in ticks since boot; with its number that names it for good.
korch_started() {
    korch_lock_stat=
    read -r korch_lock_stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${korch_lock_stat##*) }
    echo "${20}"
}

korch_take_ticket() {
    korch_lock_queue=$korch_root/tickets
    mkdir -p "$korch_lock_queue" || korch_refuse 78 state "cannot write to $korch_root"
    korch_lock_me=$$-$(korch_started $$)
    korch_lock_number=0
    : >"$korch_lock_queue/c.$korch_lock_me" || korch_refuse 78 state "cannot write to $korch_lock_queue"
    for korch_lock_file in "$korch_lock_queue"/t.*; do
        korch_lock_other=${korch_lock_file##*/t.}
        korch_lock_other=${korch_lock_other%%.*}
        case $korch_lock_other in *[!0-9]* | '') continue ;; esac
        [ "$korch_lock_other" -gt "$korch_lock_number" ] && korch_lock_number=$korch_lock_other
    done
    korch_lock_number=$((korch_lock_number + 1))
    korch_ticket=$korch_lock_queue/t.$korch_lock_number.$korch_lock_me
    : >"$korch_ticket" || korch_refuse 78 state "cannot write to $korch_lock_queue"
    rm -f "$korch_lock_queue/c.$korch_lock_me"
    while korch_must_wait; do
        sleep 0.05 2>/dev/null || sleep 1
    done
}

# True while a living process draws its number or holds a smaller one.
korch_must_wait() {
    for korch_lock_file in "$korch_lock_queue"/c.* "$korch_lock_queue"/t.*; do
        korch_lock_name=${korch_lock_file##*/}
        case $korch_lock_name in
        'c.*' | 't.*' | "t.$korch_lock_number.$korch_lock_me") continue ;;
        c.*) korch_lock_who=${korch_lock_name#c.} korch_lock_other=0 ;;
        *)
            korch_lock_other=${korch_lock_name#t.}
            korch_lock_who=${korch_lock_other#*.}
            korch_lock_other=${korch_lock_other%%.*}
            ;;
        esac
        if [ "$(korch_started "${korch_lock_who%-*}")" != "${korch_lock_who##*-}" ]; then
            rm -f "$korch_lock_file"
            continue
        fi
        [ "$korch_lock_other" -lt "$korch_lock_number" ] && return 0
        # Equal numbers: the smaller process goes first.
        [ "$korch_lock_other" -eq "$korch_lock_number" ] && [ "${korch_lock_who%-*}" -lt $$ ] && return 0
    done
    return 1
}
