# Words: EPOCH SHARED CLAIM NAME UID HASH TEMPLATE EXISTING SANDBOX, then those of `ENGINE run`. Values come on stdin, a
# line each:
#   env NAME LENGTH BASE64    exported, for `--env NAME`; a dot ends the text
#   file - LENGTH BASE64      an env-file
#   folder - LENGTH BASE64    a host path to make; a dot ends it
#   files, data               volumes of files, see place.sh
#   record FILE LENGTH BASE64 the wish of a workload, kept on the node; a dot ends it
#   end
# EXISTING: the id of the container as it was seen there, started without a look at it: ids never return, and what an id
# stands for never changes. SANDBOX: the container whose network and shared volumes this one has ("" = none).
korch_epoch=$1 korch_shared=$2 korch_claim_text=$3 korch_name=$4 korch_uid=$5 korch_hash=$6 korch_template=$7
korch_existing=$8 korch_sandbox=$9
shift 9
korch_values= korch_file= korch_folders= korch_records= korch_kind=
while read -r korch_kind korch_key korch_length korch_word; do
    [ "$korch_kind" != end ] || break
    korch_whole "$korch_length" "$korch_word"
    case $korch_kind in
    env) korch_values="$korch_values$korch_key $korch_word
" ;;
    file) korch_file=$korch_word ;;
    folder) korch_folders="$korch_folders $korch_word" ;;
    files | data) korch_note_files "$korch_kind" "$korch_key" "$korch_word" ;;
    record) korch_records="$korch_records $korch_key $korch_word" ;;
    esac
done
[ "$korch_kind" = end ] || korch_refuse 79 input "the values did not arrive whole"

# The engine's program alone sees the values. Runs in a shell of its own, which has let go of the lock's descriptor.
korch_run() {
    while read -r korch_key korch_word; do
        [ -n "$korch_key" ] || continue
        korch_value=$(korch_decode "$korch_word")
        export "$korch_key=${korch_value%.}"
    done <<EOF
$korch_values
EOF
    if [ -n "$korch_file" ]; then
        printf %s "$korch_file" | base64 -d | korch_make "$@" 2>&1
    else
        korch_make "$@" 2>&1 </dev/null
    fi
}

# `run --attach` would wait for the end. Killed between the two, the container is found and started the next time.
korch_make() {
    case $1 in
    --attach) "$korch_engine" create "$@" && "$korch_engine" start "$korch_name" </dev/null ;;
    *) "$korch_engine" run "$@" ;;
    esac
}

korch_labels() {
    "$korch_engine" inspect --type container --format \
        '{{index .Config.Labels "korch.dev/cluster"}} {{index .Config.Labels "korch.dev/uid"}} {{index .Config.Labels "korch.dev/hash"}} {{.State.Status}}' \
        "$korch_name" 2>/dev/null </dev/null
}

korch_fail() {
    korch_unlock
    echo "@korch failed $1"
    printf '%s\n' "$2"
    case $2 in
    *'already in use'* | *'already allocated'*)
        echo '@korch others'
        "$korch_engine" ps --format '{{.Names}} {{.Ports}}' 2>/dev/null </dev/null
        ;;
    esac
    echo '@korch end'
    exit 0
}

# Whether what a killed daemon left of an earlier start is in the way, as Docker and containerd put it.
korch_is_barred() {
    case $korch_out in *': already exists'* | *'id already in use'* | *'.task/moby/'*': file exists'*) ;; *) return 1 ;; esac
}

# korch_begin ID-OR-NAME: start a container that is there, past what a killed daemon left.
korch_begin() {
    for korch_pause in 0.1 0.4 1 ''; do
        korch_out=$(exec 9>&-; "$korch_engine" start "$1" 2>&1 </dev/null) && return
        korch_code=$?
        [ -n "$korch_pause" ] && korch_is_barred || return $korch_code
        korch_end_shims "$(exec 9>&-; "$korch_engine" inspect --type container --format '{{.Id}}' "$1" 2>/dev/null </dev/null)"
        sleep "$korch_pause" 2>/dev/null || sleep 1
    done
}

# The name exists: the same pod's container is started if it does not run, anything else is refused. False: it went, as
# it never ran, or is barred for good: where containerd forgot to clear it, or for a user without the rights of root.
korch_take_existing() {
    case $1 in
    "$korch_cluster $korch_uid $korch_hash running") ;;
    "$korch_cluster $korch_uid $korch_hash "*)
        korch_begin "$korch_name" || {
            korch_code=$?
            [ "$korch_try" = 1 ] || korch_fail $korch_code "$korch_out"
            [ "${1##* }" = created ] || korch_is_barred || korch_fail $korch_code "$korch_out"
            "$korch_engine" rm -f -v "$korch_name" >/dev/null 2>&1 </dev/null 9>&-
            return 1
        }
        ;;
    *) korch_refuse 76 clash "$korch_name exists and is another one" ;;
    esac
    korch_word=existed
}

korch_write_records() {
    while [ $# -gt 1 ]; do
        korch_write_record "$1" "$2"
        shift 2
    done
}

korch_enter "$korch_epoch" "$korch_shared" "$korch_claim_text"
[ -z "$korch_records" ] || korch_write_records $korch_records
for korch_word in $korch_folders; do
    korch_value=$(korch_decode "$korch_word")
    mkdir -p -- "${korch_value%.}" || korch_fail 1 "cannot make the folder ${korch_value%.}"
done
korch_place "$korch_uid" || korch_refuse 78 state "cannot write below $korch_dir/volumes: is the disk full?"
# Volumes without a name of their own are called by the sandbox's: they go when it does. A sandbox that ended meanwhile
# has no network to join.
korch_sandbox_id= korch_volumes=
if [ -n "$korch_sandbox" ]; then
    korch_out=$(exec 9>&-; "$korch_engine" inspect --type container --format \
        '{{.State.Status}} {{.Id}} {{range .Mounts}}{{.Destination}}={{.Name}} {{end}}' "$korch_sandbox" 2>&1 </dev/null) ||
        korch_fail 1 "$korch_out"
    case $korch_out in
    'running '*) korch_volumes=${korch_out#running } ;;
    *) korch_fail 1 "the pod's sandbox does not run: $korch_out" ;;
    esac
    korch_sandbox_id=${korch_volumes%% *}
fi
# Where its files are, only the node knows.
korch_count=$# korch_before=
while [ "$korch_count" -gt 0 ]; do
    case $korch_before$1 in
    --mounttype=bind,source=@korch/*)
        set -- "$@" "type=bind,source=$korch_dir/volumes/$korch_uid/${1#type=bind,source=@korch/}"
        ;;
    --networkcontainer:@korch-sandbox) set -- "$@" "container:$korch_sandbox_id" ;;
    --volume@korch-sandbox/*)
        korch_value=${1#@korch-sandbox}
        korch_word=${korch_volumes#* "${korch_value%%:*}"=}
        [ "$korch_word" != "$korch_volumes" ] || korch_fail 1 "the pod's sandbox has no volume ${korch_value%%:*}"
        set -- "$@" "${korch_word%% *}:${korch_value#*:}"
        ;;
    *) set -- "$@" "$1" ;;
    esac
    korch_before=$1 korch_count=$((korch_count - 1))
    shift
done
korch_word=started
[ -z "$korch_existing" ] || ! korch_begin "$korch_existing" || korch_word=existed
for korch_try in 1 2; do
    [ "$korch_word" = started ] || break
    korch_out=$(exec 9>&-; korch_run "$@") && break
    korch_code=$?
    korch_found=$(exec 9>&-; korch_labels)
    case $korch_out in
    *'container name "'*'already in use'*)
        if [ -n "$korch_found" ]; then
            korch_take_existing "$korch_found" || continue
            break
        fi
        # Podman's storage can keep the name of a start that was killed half-way.
        [ "$korch_engine$korch_try" = podman1 ] || korch_fail $korch_code "$korch_out"
        podman rm -f "$korch_name" >/dev/null 2>&1 </dev/null 9>&-
        ;;
    *)
        # What this call made and could not start goes away again, so that nothing is left over.
        case $korch_found in
        "$korch_cluster $korch_uid "*) "$korch_engine" rm -f -v "$korch_name" >/dev/null 2>&1 </dev/null 9>&- ;;
        esac
        korch_fail $korch_code "$korch_out"
        ;;
    esac
done
korch_unlock
echo "@korch $korch_word"
echo '@korch containers'
"$korch_engine" inspect --type container --format "$korch_template" "$korch_name" 2>&1 </dev/null
echo '@korch end'
