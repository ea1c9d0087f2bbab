# Volumes of files, which the kubelet would keep: $korch_dir/volumes/UID/NAME holds ..VERSION with the files, ..data that
# leads to it, and a link through ..data for each of them. So all of a volume changes at once, under a running container.
# Only korch's user can enter the folder above; what is inside is for the container's users, with the modes that they ask.

# korch_note_files KIND KEY WORD: what to place, line by line; for `korch_place`.
korch_files=
korch_note_files() {
    korch_files="$korch_files$1 $2 $3
"
}

# korch_place UID: with the lock held; false when something could not be written.
korch_place() {
    [ -n "$korch_files" ] || return 0
    mkdir -p "$korch_dir/volumes/$1" && chmod 700 "$korch_dir/volumes" "$korch_dir/volumes/$1" || return
    (
        umask 022
        exec 9>&-
        korch_fresh= korch_volume= korch_version=
        while read -r korch_line korch_about korch_text; do
            case $korch_line in
            files)
                korch_switch || exit
                korch_volume=$korch_dir/volumes/$1/${korch_about%%:*} korch_version=..${korch_about#*:} korch_fresh=
                mkdir -p "$korch_volume" || exit
                [ -d "$korch_volume/$korch_version" ] || {
                    korch_fresh=$korch_volume/..new
                    rm -rf "$korch_fresh" && mkdir "$korch_fresh" || exit
                }
                ;;
            data)
                [ -n "$korch_fresh" ] || continue
                korch_path=$(korch_decode "${korch_about#*:}") || exit
                korch_path=$korch_fresh/${korch_path%.}
                mkdir -p "${korch_path%/*}" && (umask 077 && printf %s "$korch_text" | base64 -d >"$korch_path") &&
                    chmod "${korch_about%%:*}" "$korch_path" || exit
                ;;
            esac
        done <<EOF
$korch_files
EOF
        korch_switch
    )
}

# The volume's files are now those of $korch_version. Any part of it may have been done before.
korch_switch() {
    [ -n "$korch_volume" ] || return 0
    [ -z "$korch_fresh" ] || mv "$korch_fresh" "$korch_volume/$korch_version" || return
    rm -rf "$korch_volume/..link" && ln -s "$korch_version" "$korch_volume/..link" || return
    mv -fT "$korch_volume/..link" "$korch_volume/..data" 2>/dev/null || {
        rm -f "$korch_volume/..data" && mv -f "$korch_volume/..link" "$korch_volume/..data" || return
    }
    for korch_path in "$korch_volume/$korch_version"/* "$korch_volume/$korch_version"/.[!.]*; do
        [ -e "$korch_path" ] || continue
        korch_path=${korch_path##*/}
        [ -L "$korch_volume/$korch_path" ] || ln -s "..data/$korch_path" "$korch_volume/$korch_path" || return
    done
    for korch_path in "$korch_volume"/* "$korch_volume"/.[!.]*; do
        [ ! -L "$korch_path" ] || [ -e "$korch_path" ] || rm -f "$korch_path"
    done
    for korch_path in "$korch_volume"/..?*; do
        case ${korch_path##*/} in
        ..data | "$korch_version") ;;
        *) rm -rf "$korch_path" ;;
        esac
    done
}
