# Words: SHARED CLAIM NAME PROGRAM. The image of sandboxes comes on stdin, for each kind of machine one, a line each:
#   MACHINE - LENGTH BASE64
#   end
# Outside the lock, as pulls are. What two of these bring at once is the same twice, and on record as brought.
korch_machine=$(uname -m) korch_image= korch_kind=
while read -r korch_kind korch_key korch_length korch_word; do
    [ "$korch_kind" != end ] || break
    korch_whole "$korch_length" "$korch_word"
    [ "$korch_kind" != "$korch_machine" ] || korch_image=$korch_word
done
[ "$korch_kind" = end ] || korch_refuse 79 input "the values did not arrive whole"
korch_fail() {
    echo '@korch failed 1'
    printf '%s\n' "$1"
    echo '@korch end'
    exit 0
}
if ! "$korch_engine" image inspect --format '{{.Id}}' "$3" >/dev/null 2>&1 </dev/null; then
    [ -n "$korch_image" ] || korch_fail "korch has no sandbox for $korch_machine machines"
    korch_claim_first "$1" "$2"
    korch_before=$(korch_image_ids)
    korch_out=$(printf %s "$korch_image" | base64 -d | "$korch_engine" import --change "ENTRYPOINT [\"$4\"]" - "$3" 2>&1) ||
        korch_fail "$korch_out"
    korch_record_new "$korch_before"
fi
echo '@korch done'
