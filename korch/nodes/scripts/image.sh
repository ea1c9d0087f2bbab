# Words: SHARED CLAIM REFERENCE POLICY TEMPLATE AUTH(1|0) DATA-FOLDER. With AUTH the registry credentials come on stdin, as the
# engine's config.json; they live in a tmpfs folder for this one pull. Pulls are outside the lock.
korch_reference=$3 korch_policy=$4 korch_template=$5 korch_auth=$6 korch_data=$7
korch_see() {
    "$korch_engine" image inspect --format "$korch_template" "$korch_reference" 2>&1 </dev/null
}
korch_fail() {
    echo "@korch failed 1"
    printf '%s\n' "$1"
    echo '@korch end'
    exit 0
}
korch_found() {
    echo "@korch image $1"
    printf '%s\n' "$korch_out"
    echo '@korch loaded'
    [ "$1" = pulled ] || [ ! -f "$korch_dir/loaded" ] || cat "$korch_dir/loaded"
    echo '@korch end'
    exit 0
}
# True when less is left on the engine's disk than the scheduler's floor: 1 GiB, or 5 % of a small disk.
korch_is_low() {
    df -Pk "$korch_data" 2>/dev/null | {
        read -r _
        read -r _ korch_total _ korch_left _ || exit 1
        [ "$korch_left" -lt 1048576 ] && [ "$korch_left" -lt $((korch_total / 20)) ]
    }
}
# korch_end_pull PID: Docker's client is gone at once, and the daemon takes back what came. Podman ends where it stands:
# the folders that it has files open in, below that for large temporary files, are its own.
korch_end_pull() {
    trap '' TERM # the pull is over before this is
    korch_spools=
    for korch_file in /proc/"$1"/fd/*; do
        korch_file=$(readlink "$korch_file")
        case $korch_file in *' '*) ;; /*/storage[0-9]*/*) korch_spools="$korch_spools ${korch_file%/*}" ;; esac
    done
    kill "$1"
    for korch_try in 1 2 3 4 5; do
        kill -0 "$1" || break
        sleep 1
    done
    rm -rf $korch_spools
}
# An engine pulls until not a byte is left, and nobody tells before how large an image is: ended in time, it takes away
# what it has brought so far.
korch_pull() {
    "$@" 2>&1 </dev/null &
    korch_puller=$!
    {
        while sleep 1 && kill -0 "$korch_puller"; do
            ! korch_is_low || { korch_end_pull "$korch_puller" && exit 9; }
        done
    } </dev/null >/dev/null 2>&1 &
    korch_watcher=$!
    wait "$korch_puller"
    korch_status=$?
    kill "$korch_watcher" 2>/dev/null
    wait "$korch_watcher" 2>/dev/null
    [ $? != 9 ] || {
        echo "the pull was ended: it would have filled the disk of $korch_data"
        return 1
    }
    return $korch_status
}
if [ "$korch_policy" != Always ]; then
    korch_out=$(korch_see) && korch_found present
    [ "$korch_policy" != Never ] || korch_fail "$korch_out"
fi
korch_claim_first "$1" "$2"
set -- "$korch_engine" pull
if [ "$korch_auth" = 1 ]; then
    for korch_folder in /dev/shm /run "${XDG_RUNTIME_DIR:-/dev/shm}"; do
        [ -w "$korch_folder" ] && grep -q " $korch_folder tmpfs " /proc/mounts || continue
        korch_tmp=$(mktemp -d "$korch_folder/korch.XXXXXX") && break
    done
    [ -n "$korch_tmp" ] || korch_refuse 77 tmpfs 'no tmpfs that could hold the registry credentials for the pull'
    cat >"$korch_tmp/config.json"
    case $korch_engine in
    docker) set -- docker --config "$korch_tmp" pull ;;
    podman) set -- podman pull --authfile "$korch_tmp/config.json" ;;
    esac
fi
korch_before=$(korch_image_ids)
korch_out=$(korch_pull "$@" -q "$korch_reference") || korch_fail "$korch_out"
korch_out=$(korch_see) || korch_fail "$korch_out"
korch_id=${korch_out#*\"Id\":\"}
korch_record_new "$korch_before" "${korch_id%%\"*}"
korch_found pulled
