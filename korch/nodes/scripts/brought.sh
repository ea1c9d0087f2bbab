# The list of image ids that korch brought to this machine: what was there before it came is never in it.
korch_image_ids() {
    "$korch_engine" images -a -q --no-trunc 2>/dev/null </dev/null
}

# korch_record_new BEFORE [ID]: adds the ids (that one, else all) that were not there before.
korch_record_new() {
    korch_brought_after=${2:-$(korch_image_ids)}
    korch_open_lock
    korch_lock -s
    for korch_brought_id in $korch_brought_after; do
        korch_brought_id=${korch_brought_id#sha256:}
        case "
$1
" in
        *"$korch_brought_id
"*) ;;
        *) echo "$korch_brought_id" >>"$korch_dir/images" ;;
        esac
    done
    korch_unlock
}
