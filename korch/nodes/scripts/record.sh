# korch_write_record FILE BASE64: the last full wish of a workload, in one piece; with the lock held.
korch_write_record() {
    mkdir -p "$korch_dir/wishes" && korch_record_text=$(korch_decode "$2") &&
        printf '%s\n' "${korch_record_text%.}" >"$korch_dir/.wish.$$" && mv -f "$korch_dir/.wish.$$" "$korch_dir/wishes/$1" && return
    rm -f "$korch_dir/.wish.$$"
    korch_refuse 78 state "cannot write $korch_dir/wishes/$1: is the disk full?"
}
