# Words: EPOCH SHARED CLAIM UID CONTAINER GRACE REMOVE(1|0) NAMESPACE OWNER. Ends, then removes the container of this
# cluster's pod with that uid; found by its labels, so nothing else is ever touched. None there counts as done.
# The wait for its end is outside the lock: a new master need not wait for it.
# With the last container of OWNER (a workload; "" = not known) its wish goes: only what runs here may be rebuilt from here.
korch_epoch=$1 korch_shared=$2 korch_claim_text=$3 korch_uid=$4 korch_container=$5 korch_grace=$6 korch_remove=$7
korch_namespace=$8 korch_owner=$9
korch_fail() {
    echo "@korch failed 1"
    printf '%s\n' "$1"
    echo '@korch end'
    exit 0
}
korch_find() {
    korch_ids=$(exec 9>&-; "$korch_engine" ps -a -q --no-trunc --filter "label=korch.dev/cluster=$korch_cluster" \
        --filter "label=korch.dev/uid=$korch_uid" --filter "label=korch.dev/container=$korch_container" \
        2>&1 </dev/null) || korch_fail "$korch_ids"
    [ -n "$korch_ids" ] || korch_done
}
korch_done() {
    [ "$korch_remove" = 0 ] || [ -z "$korch_owner" ] || korch_forget
    echo '@korch done'
    exit 0
}
# The lock is exclusive: a start writes its wish and makes its container under a shared one.
korch_forget() {
    korch_enter "$korch_epoch" "$korch_shared" "$korch_claim_text"
    korch_lock -x
    korch_ids=$(exec 9>&-; "$korch_engine" ps -a -q --no-trunc --filter "label=korch.dev/cluster=$korch_cluster" \
        --filter "label=korch.dev/namespace=$korch_namespace" --filter "label=korch.dev/owner=$korch_owner" \
        2>&1 </dev/null) || return
    [ -n "$korch_ids" ] || rm -f "$korch_dir/wishes/$korch_namespace"_*%2F"$korch_owner"
}
korch_enter "$korch_epoch" "$korch_shared" "$korch_claim_text"
korch_find
korch_unlock
# Also with no grace: Podman's `rm -f` of a running container would wait for the grace that it was made with.
korch_out=$("$korch_engine" stop -t "$korch_grace" $korch_ids 2>&1 </dev/null) || [ "$korch_remove" = 1 ] || {
    korch_find
    korch_fail "$korch_out"
}
if [ "$korch_remove" = 1 ]; then
    korch_enter "$korch_epoch" "$korch_shared" "$korch_claim_text"
    korch_find
    korch_out=$(exec 9>&-; "$korch_engine" rm -f -v $korch_ids 2>&1 </dev/null) || {
        korch_find
        korch_fail "$korch_out"
    }
    korch_unlock
fi
korch_done
