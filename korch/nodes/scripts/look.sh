# korch_look_containers TEMPLATE: the containers of all korch clusters on this machine, or why the engine does not say.
korch_look_containers() {
    korch_look_ids=$(timeout -k 2 20 "$korch_engine" ps -a -q --no-trunc --filter label=korch.dev/cluster 2>&1 </dev/null) || {
        printf '%s\n' "$korch_look_ids"
        return 1
    }
    [ -n "$korch_look_ids" ] || return 0
    timeout -k 2 20 "$korch_engine" inspect --type container --format "$1" $korch_look_ids 2>/dev/null </dev/null && return 0
    # One of them vanished meanwhile; Podman then prints none.
    for korch_look_id in $korch_look_ids; do
        "$korch_engine" inspect --type container --format "$1" "$korch_look_id" 2>/dev/null </dev/null
    done
    return 0
}
