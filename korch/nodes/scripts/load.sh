# Words: SHARED CLAIM. An image archive comes on stdin. Its images are noted as known to no registry: Podman gives even
# those a digest, which other nodes could not pull.
korch_claim_first "$1" "$2"
korch_before=$(korch_image_ids)
korch_out=$("$korch_engine" load 2>&1) && korch_word=loaded || korch_word='failed 1'
korch_record_new "$korch_before"
printf '%s\n' "$korch_out" | while read -r korch_line; do
    case $korch_line in
    'Loaded image ID: '*) echo "${korch_line#Loaded image ID: sha256:}" ;;
    'Loaded image'*) "$korch_engine" images -q --no-trunc "${korch_line#*: }" </dev/null ;;
    esac
done >>"$korch_dir/loaded"
echo "@korch $korch_word"
printf '%s\n' "$korch_out"
echo '@korch end'
