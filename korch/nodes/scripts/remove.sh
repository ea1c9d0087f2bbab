# Words: EPOCH SHARED CLAIM UID CONTAINER GRACE REMOVE(1|0) NAMESPACE OWNER TEMPLATE ONLY, then the preStop hook, if any:
# `exec WORD...` or `sleep SECONDS`. Ends, then removes the container of this cluster's pod with that uid; found by its
# labels, so nothing else is ever touched. None there counts as done. What is only ended is shown as it stands then.
# ONLY: the id that it has ("" = any): where another one is put in its place, a call that comes late must not end that.
# CONTAINER "": all of the pod's, its sandbox last: the others have its network until they have ended.
# The hook and the wait for its end are outside the lock: a new master need not wait for them.
# With the last container of OWNER (a workload; "" = not known) its wish goes: only what runs here may be rebuilt from here.
korch_epoch=$1 korch_shared=$2 korch_claim_text=$3 korch_uid=$4 korch_container=$5 korch_grace=$6 korch_remove=$7
korch_namespace=$8 korch_owner=$9
shift 9
korch_template=$1 korch_only=$2
shift 2
korch_fail() {
    echo "@korch failed 1"
    printf '%s\n' "$1"
    echo '@korch end'
    exit 0
}
korch_select() {
    "$korch_engine" ps -a -q --no-trunc --filter "label=korch.dev/cluster=$korch_cluster" \
        --filter "label=korch.dev/uid=$korch_uid" ${korch_only:+--filter "id=$korch_only"} "$@" 2>&1 </dev/null
}
korch_find() {
    korch_last=
    if [ -n "$korch_container" ]; then
        korch_ids=$(exec 9>&-; korch_select --filter "label=korch.dev/container=$korch_container") || korch_fail "$korch_ids"
    else
        korch_last=$(exec 9>&-; korch_select --filter label=korch.dev/container=POD) || korch_fail "$korch_last"
        korch_all=$(exec 9>&-; korch_select) || korch_fail "$korch_all"
        korch_ids=
        for korch_id in $korch_all; do
            case $korch_last in *"$korch_id"*) ;; *) korch_ids="$korch_ids $korch_id" ;; esac
        done
    fi
    [ -n "$korch_ids$korch_last" ] || korch_done
}
korch_done() {
    if [ "$korch_remove" = 1 ]; then
        [ ! -d "$korch_dir/volumes/$korch_uid" ] || korch_drop_files
        [ -z "$korch_owner" ] || korch_forget
    elif [ -n "$korch_ids$korch_last" ]; then
        echo '@korch containers'
        "$korch_engine" inspect --type container --format "$korch_template" $korch_ids $korch_last 2>&1 </dev/null
    fi
    echo '@korch done'
    exit 0
}
# The pod's files go with its last container.
korch_drop_files() {
    korch_ids=$(exec 9>&-; "$korch_engine" ps -a -q --filter "label=korch.dev/cluster=$korch_cluster" \
        --filter "label=korch.dev/uid=$korch_uid" 2>&1 </dev/null) || return
    [ -n "$korch_ids" ] || rm -rf "${korch_dir:?}/volumes/${korch_uid:?}"
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
# Seconds since boot: a wall clock may jump meanwhile.
korch_uptime() {
    read -r korch_up korch_idle </proc/uptime
    echo "${korch_up%%.*}"
}
# Part of the grace time, of which two seconds stay for the end itself, as in Kubernetes.
korch_hook() {
    korch_began=$(korch_uptime) korch_hook_kind=$1
    shift
    for korch_id in $("$korch_engine" ps -q --no-trunc --filter "label=korch.dev/cluster=$korch_cluster" \
        --filter "label=korch.dev/uid=$korch_uid" --filter "label=korch.dev/container=$korch_container" \
        ${korch_only:+--filter "id=$korch_only"} 2>/dev/null </dev/null); do
        if [ "$korch_hook_kind" = sleep ]; then
            [ "$1" -le "$korch_grace" ] || set -- "$korch_grace"
            sleep "$1"
            continue
        fi
        korch_out=$(timeout -k 1 "$korch_grace" "$korch_engine" exec "$korch_id" "$@" 2>&1 </dev/null) || {
            echo "@korch hook $?"
            printf '%s\n' "$korch_out" | while IFS= read -r korch_line; do printf '>%s\n' "$korch_line"; done
        }
    done
    korch_grace=$((korch_grace - $(korch_uptime) + korch_began))
    [ "$korch_grace" -ge 2 ] || korch_grace=2
}
korch_enter "$korch_epoch" "$korch_shared" "$korch_claim_text"
korch_find
korch_unlock
[ "$#" = 0 ] || [ "$korch_grace" = 0 ] || korch_hook "$@"
# Also with no grace: Podman's `rm -f` of a running container would wait for the grace that it was made with.
korch_stop() {
    korch_seconds=$1
    shift
    [ $# = 0 ] || korch_out=$("$korch_engine" stop -t "$korch_seconds" "$@" 2>&1 </dev/null) || [ "$korch_remove" = 1 ] || {
        korch_find
        korch_fail "$korch_out"
    }
}
korch_drop() {
    [ $# = 0 ] || korch_out=$(exec 9>&-; "$korch_engine" rm -f -v "$@" 2>&1 </dev/null) || {
        korch_find
        korch_fail "$korch_out"
    }
    korch_end_shims "$@"
}
korch_stop "$korch_grace" $korch_ids
korch_stop 0 $korch_last
if [ "$korch_remove" = 1 ]; then
    korch_enter "$korch_epoch" "$korch_shared" "$korch_claim_text"
    korch_find
    korch_drop $korch_ids
    korch_drop $korch_last
    korch_unlock
fi
korch_done
