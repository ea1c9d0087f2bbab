# One lock a machine, on file descriptor 9: shared while acting under the standing epoch, exclusive to change claim or
# epoch. The kernel lets go of it when this shell ends, however it ends; programs are started with 9>&- and never hold it.
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
    korch_stat=
    read -r korch_stat 2>/dev/null <"/proc/$1/stat" || return 1
    set -- ${korch_stat##*) }
    echo "${20}"
}

korch_take_ticket() {
    korch_queue=$korch_root/tickets
    mkdir -p "$korch_queue" || korch_refuse 78 state "cannot write to $korch_root"
    korch_me=$$-$(korch_started $$)
    korch_number=0
    : >"$korch_queue/c.$korch_me" || korch_refuse 78 state "cannot write to $korch_queue"
    for korch_file in "$korch_queue"/t.*; do
        korch_other=${korch_file##*/t.}
        korch_other=${korch_other%%.*}
        case $korch_other in *[!0-9]* | '') continue ;; esac
        [ "$korch_other" -gt "$korch_number" ] && korch_number=$korch_other
    done
    korch_number=$((korch_number + 1))
    korch_ticket=$korch_queue/t.$korch_number.$korch_me
    : >"$korch_ticket" || korch_refuse 78 state "cannot write to $korch_queue"
    rm -f "$korch_queue/c.$korch_me"
    while korch_must_wait; do
        sleep 0.05 2>/dev/null || sleep 1
    done
}

# True while a living process draws its number or holds a smaller one.
korch_must_wait() {
    for korch_file in "$korch_queue"/c.* "$korch_queue"/t.*; do
        korch_name=${korch_file##*/}
        case $korch_name in
        'c.*' | 't.*' | "t.$korch_number.$korch_me") continue ;;
        c.*) korch_who=${korch_name#c.} korch_other=0 ;;
        *)
            korch_other=${korch_name#t.}
            korch_who=${korch_other#*.}
            korch_other=${korch_other%%.*}
            ;;
        esac
        if [ "$(korch_started "${korch_who%-*}")" != "${korch_who##*-}" ]; then
            rm -f "$korch_file"
            continue
        fi
        [ "$korch_other" -lt "$korch_number" ] && return 0
        # Equal numbers: the smaller process goes first.
        [ "$korch_other" -eq "$korch_number" ] && [ "${korch_who%-*}" -lt $$ ] && return 0
    done
    return 1
}
