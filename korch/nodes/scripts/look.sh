# korch_look_containers TEMPLATE: the containers of all korch clusters on this machine, or why the engine does not say.
korch_look_containers() {
    korch_ids=$(timeout -k 2 20 "$korch_engine" ps -a -q --no-trunc --filter label=korch.dev/cluster 2>&1 </dev/null) || {
        printf '%s\n' "$korch_ids"
        return 1
    }
    [ -n "$korch_ids" ] || return 0
    timeout -k 2 20 "$korch_engine" inspect --type container --format "$1" $korch_ids 2>/dev/null </dev/null && return 0
    # One of them vanished meanwhile; Podman then prints none.
    for korch_id in $korch_ids; do
        "$korch_engine" inspect --type container --format "$1" "$korch_id" 2>/dev/null </dev/null
    done
    return 0
}
