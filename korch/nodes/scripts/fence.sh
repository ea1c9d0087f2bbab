# The claim (whose machine this is) and the epoch (which master may act). Both change only under the exclusive lock.
# /var/lib/korch/claims/CLUSTER-ID   who claims it, readable by all users of the machine
# /var/lib/korch/machine             a random word written at first contact: two names that show it are one machine
# /var/lib/korch/CLUSTER-ID/epoch    the highest epoch seen
# /var/lib/korch/CLUSTER-ID/engine   which engine has the containers: when it is down, another one is no replacement
korch_read_epoch() {
    korch_have=0
    [ -f "$korch_dir/epoch" ] && read -r korch_have <"$korch_dir/epoch"
    case $korch_have in '' | *[!0-9]*) korch_refuse 78 state "$korch_dir/epoch is damaged: it reads \"$korch_have\"" ;; esac
}

# korch_put FILE TEXT: all of it or nothing, on disk before it counts; false when it cannot be written. The new file is
# made where nobody takes it for a claim, also when this ends half way.
korch_put() {
    korch_put_file=$korch_root/new.$$
    printf '%s\n' "$2" >"$korch_put_file" && { sync "$korch_put_file" 2>/dev/null || sync; } && mv -f "$korch_put_file" "$1" && return
    rm -f "$korch_put_file"
    return 1
}

# korch_replace FILE TEXT: the same, or the end.
korch_replace() {
    korch_put "$1" "$2" || korch_refuse 78 state "cannot write $1: is the disk full?"
}

# korch_enter EPOCH SHARED CLAIM: returns with the shared lock held, the claim ours and the epoch standing.
korch_enter() {
    korch_open_lock
    korch_lock -s
    korch_read_epoch
    if [ "$korch_have" != "$1" ] || ! [ -f "$korch_root/claims/$korch_cluster" ]; then
        korch_lock -x
        korch_claim "$2" "$3"
        korch_raise "$1"
        korch_lock -s
        korch_read_epoch
    fi
    [ "$korch_have" -le "$1" ] || korch_refuse 75 fenced "$korch_have"
    korch_recorded=
    [ ! -f "$korch_dir/engine" ] || read -r korch_recorded <"$korch_dir/engine"
    [ "$korch_recorded" = "$korch_engine" ] || korch_put "$korch_dir/engine" "$korch_engine" 2>/dev/null || :
}

# korch_claim SHARED CLAIM: with the exclusive lock held.
korch_claim() {
    if ! [ -f "$korch_root/claims/$korch_cluster" ]; then
        for korch_claim_file in "$korch_root"/claims/* /var/lib/korch/claims/*; do
            [ -f "$korch_claim_file" ] && [ "${korch_claim_file##*/}" != "$korch_cluster" ] && [ "$1" != 1 ] || continue
            read -r korch_claim_other <"$korch_claim_file"
            korch_refuse 73 claimed "$korch_claim_other"
        done
        { mkdir -p "$korch_root/claims" && chmod 755 "$korch_root/claims"; } || korch_refuse 78 state "cannot write to $korch_root"
        [ -f "$korch_root/machine" ] || {
            read -r korch_claim_token </proc/sys/kernel/random/uuid
            korch_replace "$korch_root/machine" "$korch_claim_token"
            chmod 644 "$korch_root/machine"
        }
        mkdir -p "$korch_dir" || korch_refuse 78 state "cannot write to $korch_root"
        [ -f "$korch_dir/epoch" ] || korch_replace "$korch_dir/epoch" 0
        korch_replace "$korch_root/claims/$korch_cluster" "$2"
        chmod 644 "$korch_root/claims/$korch_cluster"
    fi
    mkdir -p "$korch_dir"
}

# korch_claim_first SHARED CLAIM: for what needs the claim and no epoch; holds no lock afterwards.
korch_claim_first() {
    [ -f "$korch_root/claims/$korch_cluster" ] && [ -d "$korch_dir" ] && return
    korch_open_lock
    korch_lock -x
    korch_claim "$1" "$2"
    korch_unlock
}

# korch_raise EPOCH: with the exclusive lock held. Where no new file can be written, the number is written into the block
# that it has: what stands on a full disk can then still be ended.
korch_raise() {
    korch_read_epoch
    [ "$korch_have" -le "$1" ] || korch_refuse 75 fenced "$korch_have"
    [ "$korch_have" -lt "$1" ] || return 0
    korch_put "$korch_dir/epoch" "$1" 2>/dev/null && return
    [ -s "$korch_dir/epoch" ] && printf '%s\n' "$1" | dd of="$korch_dir/epoch" conv=notrunc 2>/dev/null && sync
    korch_read_epoch
    [ "$korch_have" = "$1" ] || korch_refuse 78 state "cannot write $korch_dir/epoch: is the disk full?"
}
