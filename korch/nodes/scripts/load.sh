# Words: SHARED CLAIM. An image archive comes on stdin.
korch_claim_first "$1" "$2"
korch_before=$(korch_image_ids)
korch_out=$("$korch_engine" load 2>&1) && korch_word=loaded || korch_word='failed 1'
korch_record_new "$korch_before"
echo "@korch $korch_word"
printf '%s\n' "$korch_out"
echo '@korch end'
